"""Features of matrices of level and size, which GLRLM (runs), GLSZM (zones) and GLDM (dependence) share.

Formulas after Galloway (1975), Chu et al. (1990), Dasarathy and Holder (1991), Thibault et al. (2014), Sun and Wee
(1983); names and normalisation as in IBSI. Logarithms are to base 2.
"""

import numpy as np

from ukbob_jax.radiomics.first_order import EPS

# each family's name of a feature: {size} is Run, Area or Dependence
_EMPHASES = ("small", "large", "low", "high", "small_low", "small_high", "large_low", "large_high")
KINDS = (*_EMPHASES, "level_nonuniformity", "level_nonuniformity_normalised", "size_nonuniformity",
         "size_nonuniformity_normalised", "level_variance", "size_variance", "entropy", "percentage")  # fmt: skip


def features(
    group: np.ndarray, groups: int, cell: np.ndarray, level: np.ndarray, size: np.ndarray, number: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Compute all kinds of features of every matrix, (groups,) float64, and the sum of each matrix.

    Args:
        group: which matrix each entry that is not 0 belongs to, 0 to `groups` - 1; all others are one per entry too.
        cell: the row: unique among organs and levels.
        level: grey level of the row.
        size: the column, from 1.
        number: the entry.
    Returns:
        0 where a matrix is empty.
    """
    whole = np.bincount(group, number, groups)
    some = np.where(whole > 0, whole, 1)
    share = number / some[group]

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values, groups)

    def concentration(column: np.ndarray) -> np.ndarray:
        """Sum of the squares of the marginal shares."""
        key, place = np.unique(group * (int(column.max(initial=0)) + 1) + column, return_inverse=True)
        marginal = np.bincount(place, share, len(key))
        return np.bincount(key // (int(column.max(initial=0)) + 1), marginal**2, groups)

    def variance(values: np.ndarray) -> np.ndarray:
        return total(share * (values - total(share * values)[group]) ** 2)

    i, j = level.astype(np.float64) ** 2, size.astype(np.float64) ** 2
    by_level, by_size = concentration(cell), concentration(size)
    voxels = total(number * size)
    found = {
        "small": total(share / j),
        "large": total(share * j),
        "low": total(share / i),
        "high": total(share * i),
        "small_low": total(share / (i * j)),
        "small_high": total(share * i / j),
        "large_low": total(share * j / i),
        "large_high": total(share * i * j),
        "level_nonuniformity": by_level * whole,
        "level_nonuniformity_normalised": by_level,
        "size_nonuniformity": by_size * whole,
        "size_nonuniformity_normalised": by_size,
        "level_variance": variance(level),
        "size_variance": variance(size),
        "entropy": total(-share * np.log2(share + EPS)),
        "percentage": whole / np.where(voxels > 0, voxels, 1),
    }
    return found, whole
