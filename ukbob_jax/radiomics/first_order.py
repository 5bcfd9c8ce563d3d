"""First-order features: how the intensities of an organ are distributed, wherever they are."""

import numpy as np

from ukbob_jax.radiomics.regions import Cells, Regions

EPS = np.spacing(1.0)  # inside logarithms, as in pyradiomics

NAMES = (
    "10Percentile", "90Percentile", "Energy", "Entropy", "InterquartileRange", "Kurtosis", "Maximum",
    "MeanAbsoluteDeviation", "Mean", "Median", "Minimum", "Range", "RobustMeanAbsoluteDeviation", "RootMeanSquared",
    "Skewness", "TotalEnergy", "Uniformity", "Variance",
)  # fmt: skip


def first_order(
    regions: Regions, cells: Cells, *, shift: float = 0.0, excess: bool = False
) -> dict[str, np.ndarray]:
    """Compute the 18 features of every organ, (k,) float64.

    Variance, skewness and kurtosis are those of the population (divided by n). Percentiles interpolate linearly.

    Args:
        shift: added to intensities in Energy, TotalEnergy and RootMeanSquared (pyradiomics' voxelArrayShift).
        excess: kurtosis less 3, as IBSI has it.
    """
    ordered, starts, n = regions.by_value, regions.starts, regions.sizes
    each = np.repeat(np.arange(regions.count), n)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts) / n

    middle = mean(ordered)
    centred = ordered - middle[each]
    squares = centred**2
    variance, third, fourth = mean(squares), mean(squares * centred), mean(squares**2)
    spread = np.where(variance > 0, variance, 1)
    p10, p25, p50, p75, p90 = (percentile(ordered, starts, n, q) for q in (10, 25, 50, 75, 90))
    energy = np.add.reduceat((ordered + shift) ** 2, starts) if shift else mean(ordered**2) * n
    share = cells.voxels[1:] / n[cells.organ[1:]]
    least, most = ordered[starts], ordered[starts + n - 1]
    return {
        "10Percentile": p10,
        "90Percentile": p90,
        "Energy": energy,
        "Entropy": -np.add.reduceat(share * np.log2(share + EPS), cells.first - 1),
        "InterquartileRange": p75 - p25,
        "Kurtosis": fourth / spread**2 - 3 * excess,
        "Maximum": most,
        "MeanAbsoluteDeviation": mean(np.abs(centred)),
        "Mean": middle,
        "Median": p50,
        "Minimum": least,
        "Range": most - least,
        "RobustMeanAbsoluteDeviation": _robust_deviation(ordered, each, starts, p10, p90),
        "RootMeanSquared": np.sqrt(energy / n),
        "Skewness": third / spread**1.5,
        "TotalEnergy": energy * regions.spacing_mm.prod(),
        "Uniformity": np.add.reduceat(share**2, cells.first - 1),
        "Variance": variance,
    }


def percentile(ordered: np.ndarray, starts: np.ndarray, n: np.ndarray, percent: float) -> np.ndarray:
    """Return the percentile of every organ, between the two values beside it, as `np.percentile` does."""
    at = percent / 100 * (n - 1)
    below = np.floor(at).astype(np.int64)
    a, b = ordered[starts + below], ordered[starts + np.minimum(below + 1, n - 1)]
    part = at - below
    return np.where(part < 0.5, a + (b - a) * part, b - (b - a) * (1 - part))


def _robust_deviation(
    ordered: np.ndarray, each: np.ndarray, starts: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Mean absolute deviation from the mean, of the values from the 10th to the 90th percentile; NaN where there is none."""
    kept = (ordered >= low[each]) & (ordered <= high[each])
    number = np.add.reduceat(kept, starts, dtype=np.int64)
    some = np.maximum(number, 1)
    middle = np.add.reduceat(np.where(kept, ordered, 0), starts) / some
    deviation = np.add.reduceat(np.where(kept, np.abs(ordered - middle[each]), 0), starts) / some
    return np.where(number > 0, deviation, np.nan)  # two voxels: both lie outside
