"""Graders that are trained in seconds: both kinds on a few phantoms, as a recipe and as a command line."""

import sys

from configs import sentinel
from ukbob_jax import phantom, settings
from ukbob_jax.store.writer import StoreWriter

SHAPE = (32, 24, 64)
FIELDS = {
    "label": "manual", "data.contrasts": (phantom.CONTRASTS[3],), "data.batch_size": 8, "data.threads": 2,
    "mesh.data": 1, "optimizer.learning_rate": 0.01, "optimizer.warmup_steps": 1, "train.steps": 6, "train.log_every": 1,
    "train.eval_every": 3, "train.checkpoint_every": 3, "sentinel.val_pairs": 12,
}  # fmt: skip
NETWORK = {"n_stages": 2, "features_per_stage": (4, 8), "strides": (1, 2), "n_conv_per_stage": 1}
CASES = {
    "cubes": {"model.network_fields": NETWORK, "model.hidden": 8, "model.context": 8, "sentinel.size": 16},
    "slices": {
        "model.depths": (1,),
        "model.width": 4,
        "model.hidden": 8,
        "sentinel.size": 32,
        "model.detection": True,
    },
}


def write_store(path, subjects=4, held_out=2, shape=SHAPE, **row):
    """Phantoms that train, and some that validate."""
    with StoreWriter(path) as writer:
        for seed in range(subjects + held_out):
            image, label = phantom.subject(seed, shape)
            writer.write(
                f"p{seed}", image, phantom.affine(shape), {"manual": label}, source=str(seed),
                split="train" if seed < subjects else "val", contrasts=phantom.CONTRASTS, **row,
            )  # fmt: skip


def recipe(store, case="cubes", **changes):
    """The recipe of a case on a store."""
    config = sentinel.get_config(case).copy_and_resolve_references()
    return settings.with_fields(config, {"store": str(store), **FIELDS, **CASES.get(case, {}), **changes})


def command(store, workdir, case="cubes", **changes):
    """The same as a command line."""
    given = {"store": store, **FIELDS, **CASES[case], **changes}
    flat = {}
    for name, value in given.items():
        inner = (
            {f"{name}.{field}": v for field, v in value.items()} if isinstance(value, dict) else {name: value}
        )
        flat.update(inner)
    return [
        *(sys.executable, "-m", "ukbob_jax.main", f"--config=configs/sentinel.py:{case}"),
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in flat.items()),
    ]
