"""Pre-training without labels, on the images of a store; docs/pretraining.md says what each method does.

    python -m ukbob_jax.main --config=configs/pretrain.py:mae --workdir=runs/mae --config.store=STORE
    python -m ukbob_jax.main --config=configs/finetune.py:warmup --workdir=runs/mine --config.init=runs/mae ...   on labels

Variants: mae, simmim, s3d, genesis, fusion, voco, swinunetr, simclr, rasd. `--config.model.name=resenc_unet` trains another
network; s3d wants a convolutional one. rasd makes its volumes and needs no store.
Crops, batches and constants are those of the OpenMind benchmark (nnssl), the optimizer that of its transformers.
"""

import ml_collections

from configs import common
from ukbob_jax import options
from ukbob_jax.training.objectives import tasks
from ukbob_jax.training.probes.voxels import ProbeOptions

VARIANTS = {name: {} for name in tasks.METHODS}
STEPS_PER_EPOCH, EPOCHS, WARMUP = 250, 1000, 50


def get_config(variant: str = "mae") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "pretrain,report"
    config.label = ""  # images alone
    config.data.val_split = ""
    config.data.crop = (160, 160, 160)
    config.data.batch_size = 8
    config.model.in_channels = 0  # 0: as many as the store has contrasts
    config.augment = ("affine", "mirror")
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 5e-2
    config.optimizer.b2 = 0.98
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "polynomial"
    config.optimizer.warmup_steps = WARMUP * STEPS_PER_EPOCH
    config.train.steps = EPOCHS * STEPS_PER_EPOCH
    config.train.eval_every = 0
    config.probe = options.section(
        ProbeOptions
    )  # every=N with label=SET: what the encoder knows of labelled voxels

    config.pretrain = options.section(tasks.METHODS[variant].options)
    config.pretrain.method = variant  # what is learnt
    if variant == "voco":
        config.data.crop = (256, 256, 64)  # cut into crops of 64 x 64 x 64
    if variant == "simclr":
        config.data.crop = (64, 64, 64)
        config.data.batch_size = 32  # pairs of crops
    if variant in ("voco", "simclr"):
        config.augment = ("mirror", "low_resolution", "blur", "intensity", "contrast", "gamma", "noise")
    if variant == "rasd":
        config.store = ""  # if one is named, its contrasts and spacing are taken
        config.data.batch_size = 4  # volumes, each in two appearances
        config.augment = ()  # each appearance has drawn its own
    return config
