"""Quality Sentinel: train a network that predicts the Dice of a label, evaluate it, grade the labels of a store.

    python -m ukbob_jax.main --config=configs/sentinel.py --workdir=runs/grader --config.store=STORE \
        --config.data.contrasts='("water",)'                       whole masks in cubes; `:slices`: the published ResNet-50
    ... --config.sentinel.checkpoints=runs/mine --config.data.flagged=off       also masks that a training's checkpoints draw
    python -m ukbob_jax.main --config=configs/sentinel.py:evaluate --workdir=DIR --config.store=OTHER \
        --config.sentinel.grader=runs/grader
    python -m ukbob_jax.main --config=configs/sentinel.py:grade --workdir=DIR --config.store=STORE --config.label=auto \
        --config.sentinel.grader=runs/grader                       into STORE/quality/auto/sentinel.jsonl

Each field of `config.sentinel`: ukbob_jax/sentinel/options.py. Documentation: docs/sentinel.md.
"""

import ml_collections

from configs import common
from ukbob_jax import options
from ukbob_jax.sentinel.options import SentinelOptions

JOBS = {
    "cubes": "sentinel_train",
    "slices": "sentinel_train",
    "evaluate": "sentinel_evaluate",
    "grade": "sentinel",
}
VARIANTS = {name: {} for name in JOBS}


def get_config(variant: str = "cubes") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = JOBS[variant]
    config.sentinel = options.section(SentinelOptions)
    config.data.val_label = ""  # as config.label
    config.data.flagged = "off"  # or "ignore": labels that SOLF rejects are not taken for true
    config.data.batch_size = 32  # masks
    config.augment = ()
    config.model = slices() if variant == "slices" else cubes()
    config.optimizer.learning_rate = 1e-3  # ours, as all below
    config.optimizer.weight_decay = 1e-4
    config.train.steps = 20_000
    config.train.eval_every = 1_000
    config.train.best = ("val/r", "max")
    if variant == "slices":
        config.optimizer.learning_rate = 3e-4
        config.data.batch_size = 64
    return config


def cubes() -> ml_collections.ConfigDict:
    """The grader of whole masks, on the encoder of any network that says where its maps are."""
    model = _head("ukbob_jax.sentinel.volumes")
    model.network = "plain_unet"  # whose encoder looks at image and mask
    model.network_fields = ml_collections.ConfigDict()
    model.network_fields.n_stages = 4  # of that network, as the next three
    model.network_fields.features_per_stage = (16, 32, 64, 128)  # channels
    model.network_fields.strides = (1, 2, 2, 2)  # of each stage, along every axis
    model.network_fields.n_conv_per_stage = 1  # convolutions
    model.context = 64  # width of what is made of the organ and its place
    model.outline = 12  # width of the decoder that draws the organ as it should be; 0: none
    return model


def slices() -> ml_collections.ConfigDict:
    """The published network."""
    model = _head("ukbob_jax.sentinel.resnet")
    model.depths = (3, 4, 6, 3)  # blocks per stage
    model.width = 64  # channels of the first stage
    return model


def _head(name: str) -> ml_collections.ConfigDict:
    model = ml_collections.ConfigDict({"name": name})
    model.hidden = 50  # width of the layer before the grade
    model.squash = True  # a sigmoid on the grade
    model.bounded = True  # norms and gates that cannot saturate; False, with squash=False: as published
    model.detection = False  # a second output: a score for "needs repair"
    model.dtype = "float32"  # of activations
    return model
