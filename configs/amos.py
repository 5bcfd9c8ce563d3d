"""AMOS22, 15 abdominal organs in CT: ingest, train.

    python -m ukbob_jax.main --config=configs/amos.py --workdir=runs/amos --config.source.paths.root=amos22 \
        --config.init=runs/swin_bob --config.init_new='("head","stem_average")'
    ... --config=configs/amos.py:mri     its MR scans: normalised by each scan's own intensities
    ... --config=configs/amos.py:scratch    no weights to start from

`amos22` holds dataset.json, imagesTr, labelsTr, imagesVa, labelsVa, imagesTs, as it is downloaded; its validation scans
validate. The paper gives no settings for AMOS alone: numbers without a mark are those of BTCV, "ours" are not published.
"""

import ml_collections

from configs import common

VARIANTS = {"finetune": {}, "mri": {}, "scratch": {}}


def get_config(variant: str = "finetune") -> ml_collections.ConfigDict:
    config = common.base()
    common.finetune(config, layout="decathlon")
    config.source.paths.modality = "CT"  # numbers up to 500; dataset.json lists the MR scans with them
    config.source.num_classes = 16
    config.source.contrasts = ("ct",)
    config.source.spacing_mm = (1.5, 1.5, 2.0)

    config.data.names = "amos"
    config.data.normalize = "window:-175:250"  # HU
    config.data.foreground = 0.5
    config.model.in_channels = 1
    config.model.out_channels = 16
    config.loss.name = "dice_ce"
    config.augment = ("intensity", "affine")  # ours
    config.epochs.crops = 1  # ours: there are ten times as many scans as in BTCV
    config.train.eval_every = 2_500  # ours
    config.train.checkpoint_every = 1_000  # ours
    config.train.ema = 0.999  # ours
    config.inference.overlap = 0.5

    if variant == "mri":
        config.source.paths.modality = "MR"
        config.source.contrasts = ("mri",)
        config.data.normalize = "zscore"
        config.augment = ("gamma", "intensity", "noise", "bias_field", "affine")  # ours
    if variant == "scratch":
        config.optimizer.layer_decay = 1.0
    return config
