"""Fit a network to labelled scans of your own, then label them: ingest, train, predict.

    python -m ukbob_jax.main --config=configs/finetune.py --workdir=runs/mine \
        --config.source.paths.images=IMAGES --config.source.paths.labels=LABELS

IMAGES and LABELS are two folders whose files match by name, or one scan and one label map, as NIfTI. The number of
contrasts and classes is read from them. `--config.init=WEIGHTS` starts from a checkpoint; without it the network
starts at random, is small, and fits one scan in ten minutes on two cores.
"""

import ml_collections

from configs import common

VARIANTS = {"overfit": {}}


def get_config(variant: str = "overfit") -> ml_collections.ConfigDict:
    config = common.base()
    common.labelled_files(config, layout="folders", images="", labels="")
    config.job = "ingest,train,predict"
    config.source.num_classes = 0  # any label id up to 254
    config.source.spacing_mm = ()  # mm, x y z; empty: keep each scan's own
    config.source.nan = "refuse"  # scans with NaN or infinite voxels, or "zero" those voxels
    config.source.constant = "refuse"  # scans with a channel of one value throughout, or "accept"
    config.source.mask_value = (
        0  # of masks of one structure, such as 255; 0: label maps, 255 is "not annotated"
    )
    config.source.assume_ras = False  # True: accept scans that do not say how they are oriented
    config.source.label_table = ""  # a file of id, new id, name, for label ids beyond 255

    config.data.train_split = "train"
    config.data.val_split = ""  # every scan trains; what it reaches is seen in the predictions
    config.data.normalize = "auto"  # CT by its HU, MR by its own mean and spread
    config.data.crop = (64, 64, 32)
    config.data.batch_size = 1
    config.model.in_channels = 0  # 0: as many as the store has contrasts
    config.model.out_channels = 0  # 0: the largest label and one
    config.model.feature_size = 12
    config.model.window_size = (4, 4, 4)
    config.augment = ()
    config.balance = 0.5
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 10
    config.train.steps = 500
    config.train.log_every = 10
    config.train.checkpoint_every = 50
    config.train.eval_every = 1_000

    config.predict.inputs = config.source.paths.get_ref("images")
    config.predict.existing = "overwrite"
    return config
