"""The reference body on a coarse grid: no deformation, no variation, and the same on both sides."""

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.phantom import grid
from ukbob_jax.phantom.person import Person
from ukbob_jax.phantom.shapes import Canvas

SHAPE = (50, 30, 110)  # voxels of 10 mm


def person(sex: str = "M", **changes: float) -> Person:
    """A subject whose every factor is 1."""
    plain = dict.fromkeys(("frame", "shoulders", "hips", "legs", "subcutaneous", "muscle", "bladder"), 1.0)
    rest = {"height_mm": 1700.0, "visceral_mm": 0.0, "liver_fat": 0.05, "breath_mm": 0.0}
    return Person(sex=sex, **{**plain, **rest, **changes})


def canvas(fill: str = "background", shape: grid.Shape3 = SHAPE) -> Canvas:
    """A map of `fill` in world coordinates that are those of the reference body."""
    axes = grid.axes_mm(shape)
    fields = [field.astype(np.float32) for field in np.meshgrid(*axes, indexing="ij")]
    made = Canvas(axes, fields, grid.spacing_mm(shape))
    made.label[:] = anatomy.IDS[fill]
    return made


def names(label: np.ndarray) -> set[str]:
    """Names of the classes in a label map."""
    return {anatomy.NAMES[i] for i in np.unique(label).tolist()}


def mirror(label: np.ndarray) -> np.ndarray:
    """The map seen in a mirror, with the ids of left and right exchanged."""
    swap = np.arange(256)
    for a, b in anatomy.PAIRS:
        swap[[a, b]] = b, a
    return swap[label[::-1]]
