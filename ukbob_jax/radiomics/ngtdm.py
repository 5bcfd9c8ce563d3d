"""Differences of voxels from the mean level of their neighbours (Amadasun and King 1989), 5 features."""

import numpy as np

from ukbob_jax.radiomics.regions import Cells

NAMES = ("Busyness", "Coarseness", "Complexity", "Contrast", "Strength")
_LARGEST_COARSENESS = 1e6  # where no voxel differs from its neighbours


def ngtdm(voxels: np.ndarray, difference: np.ndarray, cells: Cells) -> dict[str, np.ndarray]:
    """Compute the 5 features of every organ, (k,) float64.

    Args:
        voxels: (c,) voxels of each cell that count: all (pyradiomics), or those that have a neighbour (IBSI).
        difference: (c,) from `neighbours.count`.
    """
    k, organ = len(cells.levels), cells.organ[1:]
    whole = np.bincount(organ, voxels[1:], k)
    share = np.concatenate([[0], voxels[1:] / np.maximum(whole, 1)[organ]])
    weighted = share * difference
    pairs = cells.pairs
    i, j = cells.level[pairs.one].astype(np.float64), cells.level[pairs.other].astype(np.float64)
    p, q = share[pairs.one], share[pairs.other]
    both = (p > 0) & (q > 0)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(pairs.organ, np.where(both, values, 0), k)

    level_count = np.bincount(organ, voxels[1:] > 0, k)
    sums = np.bincount(organ, difference[1:], k)
    coarse = np.bincount(organ, weighted[1:], k)
    apart = total(np.abs(i * p - j * q))
    some, number = np.where(sums > 0, sums, 1), np.maximum(whole, 1)
    steps = level_count * (level_count - 1)
    complexity = np.abs(i - j) * (weighted[pairs.one] + weighted[pairs.other]) / np.where(both, p + q, 1)
    return {
        "Busyness": np.where(apart > 0, coarse / np.where(apart > 0, apart, 1), 0),
        "Coarseness": np.where(coarse > 0, 1 / np.where(coarse > 0, coarse, 1), _LARGEST_COARSENESS),
        "Complexity": total(complexity) / number,
        "Contrast": total(p * q * (i - j) ** 2) * sums / number / np.maximum(steps, 1) * (steps > 0),
        "Strength": np.where(sums > 0, total((p + q) * (i - j) ** 2) / some, 0),
    }
