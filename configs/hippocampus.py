"""The hippocampus in two parts, small MR volumes of the Medical Segmentation Decathlon: ingest, train.

    python -m ukbob_jax.main --config=configs/hippocampus.py --workdir=runs/hippocampus \
        --config.source.paths.images=IMAGES --config.source.paths.labels=LABELS --config.splits=SPLIT.json
    ... --config=configs/hippocampus.py:msd --config.source.paths.root=Task04_Hippocampus     as it is downloaded; a fifth
        validates

SPLIT.json names who trains and who validates, `{"train": [names], "val": [names]}`. Left and right of one person are
subjects of their own: where names say whose they are, as `017_L` and `017_R` do, --config.source.person='(.+)_[LR]'
keeps them on one side of splits and folds. A window holds nearly a whole volume, which has at most 43 x 59 x 47 voxels
of 1 mm. All settings are ours, and none was tuned.
"""

import ml_collections

from configs import common

VARIANTS = {
    "folders": {"layout": "folders", "images": "", "labels": ""},
    "msd": {"layout": "decathlon", "root": ""},
}


def get_config(variant: str = "folders") -> ml_collections.ConfigDict:
    config = common.base()
    common.labelled_files(config, **VARIANTS[variant])
    config.source.num_classes = 3
    config.source.contrasts = ("t1",)

    config.data.crop = (32, 64, 32)
    config.data.batch_size = 2
    config.data.foreground = 0.9  # crops are centred on the structure; the whole volume is around it
    config.data.normalize = "zscore"  # maxima differ by four orders of magnitude between scans
    config.model.in_channels = 1
    config.model.out_channels = 3
    config.model.feature_size = 12
    config.model.window_size = (4, 4, 4)
    config.augment = ("gamma", "intensity", "noise", "affine")
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 50
    config.train.steps = 1_500
    config.train.ema = 0.99
    config.train.log_every = 25
    config.train.eval_every = 300
    config.train.checkpoint_every = 100
    if variant == "msd":
        config.folds = 5  # its own test scans have no labels, and it names none to validate with
    return config
