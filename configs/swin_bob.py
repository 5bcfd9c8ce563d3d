"""Swin-BOB training.

    python -m ukbob_jax.main --config=configs/swin_bob.py --workdir=runs/swin_bob --config.store=STORE   the paper's run
    python -m ukbob_jax.main --config=configs/swin_bob.py:demo --workdir=runs/demo   the whole loop on the embedded
                                                                                     cohort, minutes on two cores
    python -m ukbob_jax.main --config=configs/swin_bob.py:pod ...                    many devices

Reached: docs/benchmarks.md#swin-bob.
"""

import ml_collections

from configs import common

VARIANTS = {"paper": {}, "demo": {}, "pod": {}}
DEMO_ORGANS = (  # structures that 8 mm voxels carry; scored in the demo, while all 71 are trained
    "liver", "spleen", "kidney_right", "kidney_left", "stomach", "heart", "aorta", "urinary_bladder",
    "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right", "lung_lower_lobe_right",
    "femur_left", "femur_right", "hip_left", "hip_right", "gluteus_maximus_left", "gluteus_maximus_right",
    "autochthon_left", "autochthon_right", "vertebra_body", "subcutaneous_fat", "muscle",
)  # fmt: skip


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    config = common.base()
    if variant == "demo":
        demo(config)
    if variant == "pod":
        pod(config)
    return config


def pod(config: ml_collections.ConfigDict) -> None:
    """256 devices; ours, not the paper's."""
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
    config.source.shape = (64, 32, 128)  # voxels of about 7.8 x 9.4 x 8.6 mm, neck to knee
    config.source.count = 240  # subjects; SOLF is fitted on all their labels
    config.source.first = 0  # number of the first in the endless cohort
    config.source.splits = {"val": 3}  # the rest trains
    config.source.spoilt = 0.4  # share of training subjects with label errors
    config.source.errors = 0.1  # share of such a subject's large organs that get one
    config.source.scanner = ""
    config.source.seed = 0

    config.evaluate.scanners = ("contrast", "bias", "noise", "low_resolution", "low_field")
    config.evaluate.subjects = 4  # held-out bodies, the same for every scanner
    config.organs = DEMO_ORGANS

    config.data.crop = (64, 32, 32)
    config.data.batch_size = 2
    config.model.feature_size = 12
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 20
    config.train.steps = 200
    config.train.log_every = 10
    config.train.eval_every = 50
    config.train.checkpoint_every = 50
