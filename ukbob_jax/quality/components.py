"""Connected pieces of every organ, and how small stray ones are removed; an optional step beside SOLF."""

from typing import NamedTuple

import cc3d
import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ValuesError


class Allowed(NamedTuple):
    """What the labeller of the cohort expects of an organ (TotalVibeSegmentator's own quality table)."""

    fewest: int = 1  # components
    most: int = 1
    min_component_voxels: int = 0  # a component smaller than this, beside the largest, is deleted


def _allowed() -> dict[int, Allowed]:
    counts = {17: (2, 2), 26: (2, 2), 64: (4, 30), 72: (0, 10)}
    counts |= {organ: (1, 1000) for organ in (65, 66, 67)} | {organ: (1, 25) for organ in (68, 69, 70)}
    voxels_of = {
        200: (5, 42, 43, 48, 49),
        100: (1, 2, 3, 10, 11, 12, 13, 14, 50, 51, 59, 60),
        400: tuple(range(53, 59)),
        600: (61, 62),
        50: (44, 45, 46, 47, 72),
        40: (4,),
        30: (8, 9, *range(26, 34), *range(34, 42)),
        20: (18,),
        15: (21, 63),
        10: (6, 15, 16, 17, 19, 22, 23, 24, 25),
        5: (7, 52, 71),
        2: (64, 65, 66, 67, 68, 69, 70),
    }
    speck_of = {organ: voxels for voxels, organs in voxels_of.items() for organ in organs}
    organs = (organ for organ in anatomy.NAMES if organ not in (0, anatomy.UNUSED))
    return {organ: Allowed(*counts.get(organ, (1, 1)), speck_of.get(organ, 0)) for organ in organs}


ALLOWED = _allowed()


class Components(NamedTuple):
    """Pieces per class, (num_classes,)."""

    count: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    largest_voxels: np.ndarray  # of the largest piece; 0 where the organ is absent


def count(labels: np.ndarray, num_classes: int = anatomy.NUM_CLASSES, connectivity: int = 26) -> Components:
    """Count the connected pieces of every class but background and 255 at once.

    Args:
        labels: `x y z`, uint8.
        connectivity: 6, 18 or 26: neighbours over faces, also edges, also corners.
    Raises:
        ValuesError: another connectivity.
    """
    _, organ, voxels = _pieces(labels, connectivity)
    inside = organ < num_classes
    largest = np.zeros(num_classes, np.int64)
    np.maximum.at(largest, organ[inside], voxels[inside])
    return Components(np.bincount(organ[inside], minlength=num_classes), largest)


def clean(
    labels: np.ndarray, allowed: dict[int, Allowed] = ALLOWED, *, factor: float = 1.0, connectivity: int = 26
) -> np.ndarray:
    """Remove stray pieces from `labels`: those below the organ's `min_component_voxels` times `factor` become background.

    The largest piece of an organ always stays. The labeller itself uses a factor of 5 for each contrast and 15 after
    merging contrasts.

    Args, Raises: as for `count`.
    """
    pieces, organ, voxels = _pieces(labels, connectivity)
    largest = np.zeros(256, np.int64)
    np.maximum.at(largest, organ, voxels)
    smallest = np.zeros(256)
    smallest[list(allowed)] = [rule.min_component_voxels * factor for rule in allowed.values()]
    stray = (voxels < smallest[organ]) & (voxels < largest[organ])
    return np.where(np.concatenate([[False], stray])[pieces], 0, labels).astype(labels.dtype)


def _pieces(labels: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find every voxel's piece (0: none), and every piece's class and voxels, from piece 1 on."""
    if connectivity not in (6, 18, 26):
        raise ValuesError(f"connectivity={connectivity}: choose 6, 18 or 26.")
    organs = np.where(labels == anatomy.IGNORE, 0, labels)
    pieces, number = cc3d.connected_components(organs, connectivity=connectivity, return_N=True)
    organ = np.zeros(number + 1, np.int64)
    organ[pieces.ravel()] = organs.ravel()
    return pieces, organ[1:], np.bincount(pieces.ravel(), minlength=number + 1)[1:]
