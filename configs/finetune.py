"""Fit a network to labelled scans of your own, then label them: ingest, train, predict.

    python -m ukbob_jax.main --config=configs/finetune.py --workdir=runs/mine \
        --config.source.paths.images=IMAGES --config.source.paths.labels=LABELS
    ... --config=configs/finetune.py:nnunet --config.source.paths.root=DATASET       any other layout; docs/ingestion.md
    ... --config=configs/finetune.py:sawtooth --config.init=runs/mae ...             from a pre-training; docs/pretraining.md
    ... --config.source.splits.val=3 --config.data.val_split=val       three persons validate

IMAGES and LABELS are two folders whose files match by name, or one scan and one label map, as NIfTI. The number of
contrasts and classes is read from them. `--config.init=WEIGHTS` starts from a checkpoint; without it the network
starts at random, is small, and fits one scan in ten minutes on two cores. Where a person has several scans,
--config.source.person='(.+)_[LR]' says which are one person's; docs/ingestion.md has all of `config.source`.
"""

import ml_collections

from configs import common
from ukbob_jax.volumes import layouts

FOLDERS = {"layout": "folders", "images": "", "labels": ""}
VARIANTS = {
    "overfit": FOLDERS,
    "warmup": FOLDERS,  # of a pre-trained network: 50 epochs of warm-up, then polynomial
    "sawtooth": FOLDERS,  # before that, 25 epochs up and 25 down of the decoder alone
    **{name: {"layout": name, "root": ""} for name in layouts.names() if name != "folders"},
}


PRETRAINED = ("warmup", "sawtooth")
STEPS_PER_EPOCH, EPOCHS, WARMUP, DECODER = 250, 1000, 50, 50  # of the OpenMind benchmark


def get_config(variant: str = "overfit") -> ml_collections.ConfigDict:
    config = common.base()
    common.labelled_files(config, **VARIANTS[variant])
    config.data.train_split = "train"
    config.data.val_split = ""  # every scan trains; what it reaches is seen in the predictions
    config.data.normalize = "auto"  # CT by its HU, MR by its own mean and spread
    config.model.in_channels = 0  # 0: as many as the store has contrasts
    config.model.out_channels = 0  # 0: the largest label and one
    if variant in PRETRAINED:
        pretrained(config, variant)
        return config
    config.data.crop = (64, 64, 32)
    config.data.batch_size = 1
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


def pretrained(config: ml_collections.ConfigDict, variant: str) -> None:
    """A training from the weights of a pre-training, with the network and numbers of that benchmark; `init` says which."""
    config.data.normalize = "zscore"  # that of the pre-training
    config.data.crop = (160, 160, 160)
    config.data.batch_size = 2
    config.data.foreground = 0.33  # nnU-Net's, as the next five
    config.data.sampling = "nnunet"
    config.augment = ("nnunet", "mirror")
    config.loss.include_background = False
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 3e-5
    config.optimizer.clip_norm = 12.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "polynomial"
    config.optimizer.warmup_steps = WARMUP * STEPS_PER_EPOCH
    config.train.steps = EPOCHS * STEPS_PER_EPOCH
    config.train.log_every = STEPS_PER_EPOCH
    config.train.eval_every = 50 * STEPS_PER_EPOCH  # ours
    if variant == "sawtooth":
        config.optimizer.schedule = "sawtooth"
        config.optimizer.decoder_steps = DECODER * STEPS_PER_EPOCH
