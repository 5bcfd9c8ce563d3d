"""Grey-level co-occurrence: which levels lie beside each other (Haralick et al. 1973), 24 features.

The matrices are symmetric (both directions of an offset). Features are computed offset by offset and averaged, or, where
offsets are merged or weighted, from their summed matrix. Logarithms are to base 2.
"""

import numpy as np

from ukbob_jax.radiomics import directions
from ukbob_jax.radiomics.first_order import EPS
from ukbob_jax.radiomics.regions import Cells

NAMES = (
    "Autocorrelation", "ClusterProminence", "ClusterShade", "ClusterTendency", "Contrast", "Correlation",
    "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "Id", "Idm", "Idmn", "Idn", "Imc1", "Imc2",
    "InverseVariance", "JointAverage", "JointEnergy", "JointEntropy", "MCC", "MaximumProbability", "SumAverage",
    "SumEntropy", "SumSquares",
)  # fmt: skip
_BLOCK = 16  # matrices are padded to multiples of it, so that those of a size are solved together


def glcm(
    counts: np.ndarray, cells: Cells, steps: np.ndarray, spacing_mm: np.ndarray, weighting: str, merge: bool
) -> dict[str, np.ndarray]:
    """Compute the 24 features of every organ, (k,) float64.

    Args:
        counts: (a, t) from `neighbours.count`.
        steps: (a, 3), the offsets.
        weighting: "" or the norm of exp(-distance²), distances in mm (pyradiomics' weightingNorm).
        merge: sum the matrices of all offsets first (IBSI's merged form).
    """
    weights = None
    if weighting in ("", "no_weighting"):
        weights = np.ones(len(steps)) if merge or weighting else None
    else:
        weights = np.exp(-(directions.lengths(steps, spacing_mm, weighting) ** 2))
    counts = directions.combine(counts, weights)
    pairs, k = cells.pairs, len(cells.levels)
    back = pairs.start[pairs.organ] + (pairs.other - cells.first[pairs.organ]) * cells.levels[pairs.organ]
    counts = counts + counts[:, back + pairs.one - cells.first[pairs.organ]]
    angle, at = np.nonzero(counts)
    group = angle * k + pairs.organ[at]  # one matrix: an organ in a direction
    groups = len(counts) * k
    number = counts[angle, at].astype(np.float64)
    total = np.bincount(group, number, groups)
    share = number / total[group]
    one, other = pairs.one[at], pairs.other[at]
    found = _of_pairs(group, groups, cells.level[one], cells.level[other], share)
    rank_one, rank_other = (cell - cells.first[pairs.organ[at]] for cell in (one, other))
    highest = np.tile(cells.highest, len(counts))
    found |= _of_differences(group, groups, np.abs(cells.level[one] - cells.level[other]), share, highest)
    found |= _information(group, groups, rank_one, rank_other, share, found["JointEntropy"])
    found["MCC"] = _maximal_correlation(
        group, rank_one, rank_other, share, np.tile(cells.levels, len(counts))
    )
    valid = (total > 0).reshape(-1, k)
    averaged = {name: directions.mean(found[name].reshape(-1, k), valid) for name in NAMES}
    averaged["MCC"][cells.levels == 1] = 1  # also where no voxel has a neighbour, as in pyradiomics
    return averaged


def _entropy(share: np.ndarray) -> np.ndarray:
    return -share * np.log2(share + EPS)


def _of_pairs(
    group: np.ndarray, groups: int, i: np.ndarray, j: np.ndarray, share: np.ndarray
) -> dict[str, np.ndarray]:
    """What is a sum over pairs of levels; `group`, `i`, `j`, `share` are one per entry that is not 0."""

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values, groups)

    middle = total(share * i)
    from_one, from_other = i - middle[group], j - middle[group]
    together = from_one + from_other
    variance = total(share * from_one**2)
    covariance = total(share * from_one * from_other)
    greatest = np.zeros(groups)
    np.maximum.at(greatest, group, share)
    sums = np.bincount(group * (k_sum := int((i + j).max(initial=0)) + 1) + i + j, share, groups * k_sum)
    square = share * together**2
    return {
        "Autocorrelation": total(share * i * j),
        "ClusterTendency": total(square),
        "ClusterShade": total(square * together),
        "ClusterProminence": total(square * together**2),
        "Contrast": total(share * (i - j) ** 2.0),
        "Correlation": np.where(variance > 0, covariance / (variance + EPS), 1),
        "JointAverage": middle,
        "JointEnergy": total(share**2),
        "JointEntropy": total(_entropy(share)),
        "MaximumProbability": greatest,
        "SumAverage": 2 * middle,
        "SumEntropy": _entropy(sums).reshape(groups, k_sum).sum(1),
        "SumSquares": variance,
    }


def _of_differences(
    group: np.ndarray, groups: int, gap: np.ndarray, share: np.ndarray, highest: np.ndarray
) -> dict[str, np.ndarray]:
    """What is computed from how probable each difference of levels is."""
    width = int(gap.max(initial=0)) + 1
    p = np.bincount(group * width + gap, share, groups * width).reshape(groups, width)
    k, top = np.arange(width, dtype=np.float64), highest[:, None]
    middle = p @ k
    return {
        "DifferenceAverage": middle,
        "DifferenceEntropy": _entropy(p).sum(1),
        "DifferenceVariance": (p * (k - middle[:, None]) ** 2).sum(1),
        "Id": (p / (1 + k)).sum(1),
        "Idm": (p / (1 + k**2)).sum(1),
        "Idmn": (p / (1 + k**2 / top**2)).sum(1),
        "Idn": (p / (1 + k / top)).sum(1),
        "InverseVariance": (p[:, 1:] / k[1:] ** 2).sum(1),
    }


def _marginal(group: np.ndarray, rank: np.ndarray, share: np.ndarray, groups: int) -> np.ndarray:
    """Probability of each level, (groups, greatest rank + 1)."""
    width = int(rank.max(initial=0)) + 1
    return np.bincount(group * width + rank, share, groups * width).reshape(groups, width)


def _information(
    group: np.ndarray, groups: int, one: np.ndarray, other: np.ndarray, share: np.ndarray, joint: np.ndarray
) -> dict[str, np.ndarray]:
    """Informational measures of correlation 1 and 2; `joint` is the entropy of pairs.

    The entropy of independent levels is the sum of their own; pyradiomics' EPS inside that logarithm is under 1e-12.
    """
    p = _marginal(group, one, share, groups)
    own = _entropy(p).sum(1)
    cross = np.bincount(group, -share * np.log2(p[group, one] * p[group, other] + EPS), groups)
    apart = 2 * own - joint
    flat = (p > 0).sum(1) < 2
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(own != 0, (joint - cross) / own, 0)
    return {"Imc1": first, "Imc2": np.where(flat | (apart <= 0), 0, np.sqrt(-np.expm1(-2 * np.abs(apart))))}


def _maximal_correlation(
    group: np.ndarray, one: np.ndarray, other: np.ndarray, share: np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """Maximal correlation coefficient of every matrix: 1 for an organ of one level.

    Haralick's Q is similar to S S, S_ij = p_ij / sqrt(p_i p_j). S is symmetric, its greatest eigenvalue is 1, and the
    second in size is the coefficient. Matrices of like size are solved together.
    """
    groups = len(levels)
    p = _marginal(group, one, share, groups)
    scaled = share / np.sqrt(p[group, one] * p[group, other])
    found = np.ones(groups)
    block = -(-levels // _BLOCK)
    order = np.argsort(block[group], kind="stable")
    ends = np.cumsum(np.bincount(block[group], minlength=int(block.max()) + 1))
    for size in np.unique(block):
        mine = np.flatnonzero((block == size) & (levels > 1))
        entries = order[ends[size - 1] : ends[size]]
        place = np.zeros(groups, np.int64)
        place[mine] = np.arange(len(mine))
        entries = entries[levels[group[entries]] > 1]
        matrices = np.zeros((len(mine), size * _BLOCK, size * _BLOCK))
        matrices[place[group[entries]], one[entries], other[entries]] = scaled[entries]
        values = np.sort(np.abs(np.linalg.eigvalsh(matrices)), 1)
        found[mine] = values[:, -2]
    return found
