"""The grader that `curation.py` asks: trained on true labels of other bodies, made worse on purpose.

It never sees a planted error of the cohort: bodies, kinds of error and random numbers are others
(`ukbob_jax/sentinel/degradation.py`, not `ukbob_jax/phantom/label_errors.py`).
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from configs import sentinel as recipe
from configs import swin_bob
from experiments import small
from ukbob_jax import anatomy, phantom, progress, sentinel, settings
from ukbob_jax.jobs import ingest, sentinel_train

CONTRAST = "water"
FIRST = 10_000  # number of the first body; the cohort's are below
TRAIN, VAL = 240, 40


def trained(workdir: pathlib.Path, shape: tuple[int, int, int], steps: int) -> sentinel.TrainedGrader:
    """The grader of a workdir; its training goes on where it stopped."""
    store, run = workdir / "trusted", workdir / "grader"
    bodies(store, shape)
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


def bodies(store: pathlib.Path, shape: tuple[int, int, int]) -> None:
    """True labels of bodies that the cohort does not have, into a store; those that are there are passed over."""
    fields = {
        "store": str(store),
        "source.shape": shape,
        "source.first": FIRST,
        "source.count": TRAIN + VAL,
        "source.splits": {"val": VAL},
        "source.errors": 0.0,
    }
    demo = swin_bob.get_config("demo").copy_and_resolve_references()
    ingest.run(settings.with_fields(demo, fields), str(store.parent))
