"""Pre-trainings that take seconds: every method on the tiny network, as a recipe and as a command line."""

import sys

from configs import pretrain
from tests import tiny_network
from ukbob_jax import phantom, settings
from ukbob_jax.store.writer import StoreWriter

SHAPE = (32, 24, 64)
NETWORK = tiny_network.__name__
FIELDS = {
    "data.crop": (16, 16, 16), "data.batch_size": 4, "data.threads": 2, "mesh.data": 1, "augment": ("intensity",),
    "optimizer.learning_rate": 0.02, "optimizer.warmup_steps": 1, "train.steps": 6, "train.log_every": 1,
    "train.checkpoint_every": 3, "model.in_channels": 0,
}  # fmt: skip
VOCO = {"pretrain.width": 8, "pretrain.grid": (2, 2, 1), "pretrain.targets": 2}
CASES = {
    "mae": {"pretrain.block": 4},
    "simmim": {"pretrain.block": 4},
    "s3d": {"pretrain.block": 4},
    "genesis": {"pretrain.windows": 50},
    "fusion": {"pretrain.smallest": 3, "pretrain.largest": 6},
    "voco": VOCO,
    "voco_authors": {**VOCO, "pretrain.form": "authors", "train.ema": 0.9},
    "swinunetr": {"pretrain.width": 8},
    "simclr": {"pretrain.width": 8},
    "rasd": {"pretrain.width": 4, "pretrain.voxels": 64, "pretrain.most": 6, "pretrain.ellipsoids": 1},
}


def method_of(case):
    """The variant of `configs/pretrain.py` that a case is of."""
    return case.partition("_")[0]


def write_store(path, subjects=4, held_out=0):
    """Phantoms that train, and some that validate."""
    with StoreWriter(path) as writer:
        for seed in range(subjects + held_out):
            image, label = phantom.subject(seed, SHAPE)
            writer.write(
                f"p{seed}", image, phantom.affine(SHAPE), {"manual": label}, source=str(seed),
                split="train" if seed < subjects else "val", contrasts=phantom.CONTRASTS,
            )  # fmt: skip


def recipe(store, case, network=NETWORK, **changes):
    """The recipe of a case on a store."""
    config = pretrain.get_config(method_of(case)).copy_and_resolve_references()
    config = settings.with_network(config, [f"--config.model.name={network}"])
    return settings.with_fields(config, {"store": str(store), **FIELDS, **CASES[case], **changes})


def command(store, workdir, case, **changes):
    """The same as a command line."""
    given = {"model.name": NETWORK, "store": store, **FIELDS, **CASES[case], **changes}
    return [
        *(sys.executable, "-m", "ukbob_jax.main", f"--config=configs/pretrain.py:{method_of(case)}"),
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in given.items()),
    ]
