"""Agreement counted in lesions rather than voxels: a small lesion that is missed counts as much as a large one."""

from typing import Literal, NamedTuple

import cc3d
import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ValuesError

Connectivity = Literal[6, 18, 26]  # neighbours of a voxel: by faces, edges too, corners too


class Lesions(NamedTuple):
    """Counts and means over the lesions of one label; NaN where nothing is to be counted."""

    true_positives: int  # true lesions that some predicted one touches
    false_negatives: int  # true lesions that no predicted one touches
    false_positives: int  # predicted lesions that touch no true one
    sensitivity: float  # true positives / true lesions; NaN without a true lesion
    precision: float  # predicted lesions that touch a true one / predicted; NaN without a predicted lesion
    dice: float  # mean over true lesions and false positives, undetected and false ones as 0; NaN where there are none


def lesions(
    pred: np.ndarray,
    true: np.ndarray,
    label: int = 1,
    *,
    connectivity: Connectivity = 26,
    min_voxels: int = 1,
) -> Lesions:
    """Compare lesion by lesion, as the BraTS challenge does since 2023 (without its dilation).

    A true lesion is compared with all predicted ones that touch it, taken together. Voxels where the truth is 255
    belong to no lesion.

    Args:
        pred: `x y z`, integers.
        true: `x y z`.
        label: the class that is counted.
        connectivity: 6, 18 or 26: what makes one piece.
        min_voxels: smaller pieces of either map are left out.

    Raises:
        ValuesError: the shapes differ or are not 3-D, or another connectivity.
    """
    pred, true = np.asarray(pred), np.asarray(true)
    if pred.shape != true.shape or pred.ndim != 3:
        raise ValuesError(
            f"prediction has shape {pred.shape}, truth {true.shape}: both must be one x y z grid."
        )
    if connectivity not in (6, 18, 26):
        raise ValuesError(f"connectivity={connectivity}: choose 6, 18 or 26.")
    pieces = [
        _pieces((labels == label) & (true != IGNORE), connectivity, min_voxels) for labels in (pred, true)
    ]
    (in_pred, sizes), (in_true, true_sizes) = pieces
    pairs, shared = np.unique(in_true * (len(sizes) + 1) + in_pred, return_counts=True)
    overlap = np.zeros((len(true_sizes) + 1, len(sizes) + 1), np.int64)
    overlap.ravel()[pairs.ravel()] = shared
    touch = overlap[1:, 1:]
    hit, right = touch.any(1), touch.any(0)
    together = (touch > 0) @ sizes  # voxels of the predicted lesions that touch each true one
    dice = 2 * touch.sum(1) / np.maximum(true_sizes + together, 1)
    counted = len(true_sizes) + int((~right).sum())
    return Lesions(
        true_positives=int(hit.sum()),
        false_negatives=int((~hit).sum()),
        false_positives=int((~right).sum()),
        sensitivity=float(hit.mean()) if hit.size else float("nan"),
        precision=float(right.mean()) if right.size else float("nan"),
        dice=float(dice.sum() / counted) if counted else float("nan"),
    )


def _pieces(mask: np.ndarray, connectivity: Connectivity, min_voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each voxel's piece, from 1 (0: none), and how many voxels each piece has."""
    components, count = cc3d.connected_components(
        mask.astype(np.uint8), connectivity=connectivity, return_N=True
    )
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    kept = np.flatnonzero(sizes[1:] >= min_voxels) + 1
    number = np.zeros(count + 1, np.int64)
    number[kept] = np.arange(1, kept.size + 1)
    return number[components], sizes[kept]
