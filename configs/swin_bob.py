"""Swin-BOB training.

    python -m ukbob_jax.main --config=configs/swin_bob.py --workdir=runs/swin_bob --config.store=STORE   the paper's run
    python -m ukbob_jax.main --config=configs/swin_bob.py:demo --workdir=runs/demo   the whole loop on the embedded
                                                                                     cohort, minutes on two cores
    python -m ukbob_jax.main --config=configs/swin_bob.py:pod ...                    many devices

Shorter: --config.epochs.total=10, or --config.epochs.total=0 --config.train.steps=1000. Numbers without a mark are the
paper's or of the script released with it; "ours" are not published.

Reached: docs/benchmarks.md#swin-bob.
"""

import ml_collections

from configs import common

VARIANTS = {"paper": {}, "demo": {}, "pod": {}}
DEMO_ORGANS = (  # structures that the demo's coarse voxels carry; the filter judges all 71
    "liver", "spleen", "kidney_right", "kidney_left", "stomach", "heart",
    "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right", "lung_lower_lobe_right",
    "femur_left", "femur_right", "hip_left", "hip_right", "gluteus_maximus_left", "gluteus_maximus_right",
    "autochthon_left", "autochthon_right", "subcutaneous_fat", "muscle",
)  # fmt: skip


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    config = common.base()
    if variant == "paper":
        paper(config)
    if variant == "demo":
        demo(config)
    if variant == "pod":
        pod(config)
    return config


def paper(config: ml_collections.ConfigDict) -> None:
    """The paper's pre-training; what it shares with other recipes is in `common`."""
    config.loss.name = "dice_bce"  # paper; the released script: "dice_ce"
    config.epochs.total = 3_000  # paper; 0: train.steps and optimizer.warmup_steps count
    config.epochs.warmup = 60  # ours; paper: more than 50


def pod(config: ml_collections.ConfigDict) -> None:
    """256 devices; ours, not the paper's: length in steps, and the released script's loss."""
    config.data.batch_size = 256
    config.model.dtype = "bfloat16"
    config.model.remat = True
    config.optimizer.learning_rate = 4e-4


def demo(config: ml_collections.ConfigDict) -> None:
    """The embedded phantom cohort, a small network, every stage of the loop."""
    config.job = "demo"
    config.store = "{workdir}/stores/cohort"

    config.source = ml_collections.ConfigDict()
    config.source.kind = "phantom"
    config.source.shape = (32, 32, 64)  # voxels of about 16 x 9 x 17 mm, neck to knee: minutes on two cores
    config.source.count = 240  # subjects; SOLF is fitted on all their labels
    config.source.first = 0  # number of the first in the endless cohort
    config.source.splits = {"val": 3}  # the rest trains
    config.source.corrupted_fraction = 0.4  # of training subjects with label errors
    config.source.errors = 0.1  # fraction of such a subject's large organs that get one
    config.source.scanner = ""  # that all subjects were scanned with; empty: that of training
    config.source.seed = 0

    config.evaluate.scanners = ("contrast", "bias", "noise", "low_resolution", "low_field")
    config.evaluate.subjects = 4  # held-out bodies, the same for every scanner
    config.organs = DEMO_ORGANS

    config.data.organs = DEMO_ORGANS
    config.data.crop = (32, 32, 64)  # the whole body
    config.data.batch_size = 1
    config.model.out_channels = 0  # background and the organs above
    config.model.feature_size = 12
    config.model.window_size = (4, 4, 4)
    config.balance = 0.5
    config.etta.steps = 3
    config.etta.learning_rate = 3e-3
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = 200
    config.train.log_every = 10
    config.train.eval_every = 40
    config.train.checkpoint_every = 40
