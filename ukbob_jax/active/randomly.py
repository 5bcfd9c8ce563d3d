"""Units drawn by chance: uniformly, or where there is something to annotate, the baseline that strategies must beat.

Foreground-aware random (nnActive, Lüth et al. 2025) draws a third of the patches anywhere, a third around a voxel of a
structure and a third around a voxel of its surface; structures are drawn equally, whatever their size.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from ukbob_jax.active.patches import Size, Unit, free_starts
from ukbob_jax.active.uncertainty import cut_to
from ukbob_jax.anatomy import IGNORE

AREAS = ("all", "seg", "border")
ODDS = {"equal": (1, 1, 1), "4:1:1": (4, 1, 1)}  # of the areas
MOST_TRIES = 100  # draws around a structure of one scan before its patch is drawn anywhere in it


def class_voxels(
    segmentation: np.ndarray, area: str, rng: np.random.Generator, background: int = 0
) -> np.ndarray:
    """Draw one of the structures present, each with the same chance, and list its voxels.

    Args:
        segmentation: `x y z`, integers.
        area: "seg": all of the structure; "border": those with one of their 6 neighbours outside it. Beyond the scan is
            outside.
        rng: of the draw.
        background: not a structure; nor is 255.
    Returns:
        `n 3`, in C order; empty where there is no structure.
    """
    values, drawn = np.unique(segmentation), background
    if np.isin(values, (background, IGNORE)).all():
        return np.zeros((0, 3), np.int64)
    while drawn in (
        background,
        IGNORE,
    ):  # draws again, as nnActive does: the same seed gives the same structure
        drawn = values[int(rng.integers(len(values)))]
    mask = segmentation == drawn
    if area == "border":
        mask &= ~ndimage.binary_erosion(mask)
    return np.argwhere(mask)


def start_around(centre: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> Size:
    """Lowest corner of the patch with this voxel in its middle, moved to lie within the scan."""
    x, y, z = (int(min(max(c - side // 2, 0), length - side)) for c, side, length in zip(centre, size, shape))
    return x, y, z


def uniform_start(free: np.ndarray, rng: np.random.Generator) -> Size:
    """One of the lowest corners that are free, each with the same chance."""
    places = np.flatnonzero(free)
    x, y, z = np.unravel_index(int(places[rng.integers(len(places))]), free.shape)
    return int(x), int(y), int(z)


def patches(
    shapes: Mapping[str, Sequence[int]],
    size: Sequence[int],
    number: int,
    labelled: Sequence[Unit],
    rng: np.random.Generator,
    segmentation: Callable[[str], np.ndarray] | None = None,
    odds: Sequence[float] = ODDS["equal"],
) -> list[Unit]:
    """Draw patches that overlap neither each other nor what is labelled: the scan first, then the place.

    Args:
        shapes: of the scans, voxels.
        size: of a patch, cut to the scan.
        number: of patches; fewer where no more fit.
        labelled: units that are labelled already.
        rng: of all draws.
        segmentation: subject -> labels `x y z`, to draw around; None: anywhere.
        odds: of the areas anywhere, structure, surface.
    """
    chosen: list[Unit] = []
    subjects, chance = list(shapes), np.asarray(odds, float) / np.sum(odds)
    while len(chosen) < number and subjects:
        subject = subjects[int(rng.integers(len(subjects)))]
        shape, side = shapes[subject], cut_to(size, shapes[subject])
        free = free_starts(shape, side, [u for u in (*labelled, *chosen) if u.subject == subject])
        if not free.any():
            subjects.remove(subject)
            continue
        area = AREAS[int(rng.choice(len(AREAS), p=chance))] if segmentation else "all"
        start = None
        if segmentation and area != "all":
            start = _free_start_around(class_voxels(segmentation(subject), area, rng), side, shape, free, rng)
        chosen.append(Unit(subject, start or uniform_start(free, rng), side))
    return chosen


def _free_start_around(
    voxels: np.ndarray, size: Size, shape: Sequence[int], free: np.ndarray, rng: np.random.Generator
) -> Size | None:
    """A free corner of a patch around one of `voxels`; None where there is none within `MOST_TRIES` draws."""
    for _ in range(MOST_TRIES if len(voxels) else 0):
        start = start_around(voxels[int(rng.integers(len(voxels)))], size, shape)
        if free[start]:
            return start
    return None


def scans(
    shapes: Mapping[str, Size],
    number: int,
    rng: np.random.Generator,
    present: Callable[[str], Sequence[int]] | None = None,
) -> list[Unit]:
    """Draw whole scans: each with the same chance, or for a structure drawn equally among those of all that are left.

    Args:
        shapes: of the scans that are not labelled.
        number: of scans; fewer where there are no more.
        rng: of all draws.
        present: subject -> ids of its structures, to draw for; None: each with the same chance.
    """
    left, chosen = list(shapes), []
    of = {subject: set(present(subject)) for subject in left} if present else {}
    while left and len(chosen) < number:
        holders = left
        if ids := sorted(set().union(*(of.get(subject, ()) for subject in left))):
            drawn = ids[int(rng.integers(len(ids)))]
            holders = [subject for subject in left if drawn in of[subject]]
        subject = holders[int(rng.integers(len(holders)))]
        left.remove(subject)
        chosen.append(Unit(subject, (0, 0, 0), shapes[subject]))
    return chosen
