"""The grader that `curation.py` asks: trained on true labels of other bodies, made worse on purpose.

It never sees a planted error of the cohort: bodies, kinds of error and random numbers are others
(`ukbob_jax/sentinel/degradation.py`, not `ukbob_jax/phantom/label_errors.py`).
"""

import pathlib
import shutil
from collections.abc import Sequence

import numpy as np

from configs import sentinel as recipe
from experiments import small
from ukbob_jax import anatomy, phantom, progress, sentinel, settings
from ukbob_jax.jobs import sentinel_train
from ukbob_jax.store.writer import StoreWriter

CONTRAST = "water"
FIRST = 10_000  # number of the first body; the cohort's are below
TRAIN, VAL = 240, 40


def trained(workdir: pathlib.Path, shape: tuple[int, int, int], steps: int) -> sentinel.TrainedGrader:
    """The grader of a workdir; its training, 20 minutes, goes on where it stopped."""
    store, run = workdir / "trusted", workdir / "grader"
    _write(store, shape)
    if not (run / "sentinel.json").exists():
        sentinel_train.run(config(store, steps), str(run))
    return sentinel.load(run)


def config(store: pathlib.Path, steps: int):
    """`configs/sentinel.py` with what bodies of few voxels ask for."""
    fields = {
        "store": str(store),
        "label": "manual",
        "data.contrasts": (CONTRAST,),
        "data.organs": small.ORGANS,
        "train.steps": steps,
        "train.eval_every": max(1, steps // 5),
        "optimizer.learning_rate": 2e-3,
        "optimizer.warmup_steps": steps // 20,
        "sentinel.size": 16,
        "sentinel.margin": 40.0,
        "sentinel.val_pairs": 480,
    }
    return settings.with_fields(recipe.get_config("cubes").copy_and_resolve_references(), fields)


def grades(
    trained: sentinel.TrainedGrader, labels: np.ndarray, shape: tuple[int, int, int], organs: Sequence[int]
) -> np.ndarray:
    """Predicted Dice (n, num_classes) of label maps n x y z of the bodies 0 to n - 1; 1 where an organ was not asked for."""
    found = np.ones((len(labels), anatomy.NUM_CLASSES))
    for i, label in progress.track(list(enumerate(labels)), "grades"):
        image = phantom.subject(i, shape)[0][..., phantom.CONTRASTS.index(CONTRAST)]
        asked = np.where(np.isin(label, organs), label, 0)
        dice = trained.grade(image, asked, phantom.spacing_mm(shape)).dice
        there = np.intersect1d(np.unique(asked), organs)
        found[i, there] = dice[there]
    return found


def _write(store: pathlib.Path, shape: tuple[int, int, int]) -> None:
    """True labels of bodies that the cohort does not have."""
    if store.exists():
        return
    partial = store.with_name(f"{store.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with StoreWriter(partial) as writer:
        for i in progress.track(range(TRAIN + VAL), "trusted bodies"):
            image, label = phantom.subject(FIRST + i, shape)
            writer.write(
                f"body{i:03d}",
                image,
                phantom.affine(shape),
                {"manual": label},
                source=str(FIRST + i),
                split="train" if i < TRAIN else "val",
                contrasts=phantom.CONTRASTS,
            )
    partial.rename(store)
