"""Fit a network to labelled scans of your own, then label them: ingest, train, predict.

    python -m ukbob_jax.main --config=configs/finetune.py --workdir=runs/mine \
        --config.source.paths.images=IMAGES --config.source.paths.labels=LABELS
    ... --config=configs/finetune.py:nnunet --config.source.paths.root=DATASET       any other layout; docs/ingestion.md
    ... --config.source.splits.val=3 --config.data.val_split=val       three persons validate

IMAGES and LABELS are two folders whose files match by name, or one scan and one label map, as NIfTI. The number of
contrasts and classes is read from them. `--config.init=WEIGHTS` starts from a checkpoint; without it the network
starts at random, is small, and fits one scan in ten minutes on two cores. Where a person has several scans,
--config.source.person='(.+)_[LR]' says which are one person's; docs/ingestion.md has all of `config.source`.
"""

import ml_collections

from configs import common
from ukbob_jax.volumes import layouts

VARIANTS = {
    "overfit": {"layout": "folders", "images": "", "labels": ""},
    **{name: {"layout": name, "root": ""} for name in layouts.names() if name != "folders"},
}


def get_config(variant: str = "overfit") -> ml_collections.ConfigDict:
    config = common.base()
    common.labelled_files(config, **VARIANTS[variant])
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

    if variant == "overfit":
        config.job = "ingest,train,predict"
        config.predict.inputs = config.source.paths.get_oneway_ref("images")
    config.predict.existing = "overwrite"
    return config
