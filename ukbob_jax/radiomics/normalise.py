"""Tables of features brought to one scale before their distance is taken; NaN is left out of every statistic."""

import warnings

import numpy as np

V0_RANGE = (0.0, 7.45670747756958)  # of FRD v0
V1_RANGE = (0.0, 1.0)  # v1 takes from it only what a missing value becomes


def z_score(
    values: np.ndarray,
    base: np.ndarray | None = None,
    *,
    fill: bool = True,
    constant_to_zero: bool = True,
    limits: tuple[float, float] = V1_RANGE,
) -> np.ndarray:
    """Subtract the mean and divide by the population's standard deviation, both of `base`.

    Args:
        values: (n, f).
        base: (m, f); None: `values` itself.
        fill: missing values become the middle of `limits`, as in the released code (not 0, the mean).
        constant_to_zero: columns that are constant in `base` are not divided; without it they become NaN or infinite.
    """
    base = values if base is None else base
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, spread = np.nanmean(base, axis=0), np.nanstd(base, axis=0)
        if constant_to_zero:
            spread = np.where(spread == 0, 1, spread)
        scaled = (values - mean) / spread
    return np.where(np.isnan(scaled), np.asarray(sum(limits) / 2, scaled.dtype), scaled) if fill else scaled


def min_max(
    values: np.ndarray, base: np.ndarray | None = None, *, limits: tuple[float, float] = V0_RANGE
) -> np.ndarray:
    """Map the range of `base` (m, f) to `limits`, column by column; constant columns and NaN to their middle."""
    base = values if base is None else base
    low, high = limits
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        least, most = np.nanmin(base, axis=0), np.nanmax(base, axis=0)
        scaled = (values - least) / (most - least) * (high - low) + low
    return np.where(np.isnan(scaled), (low + high) / 2, scaled)


def constant(values: np.ndarray, share: float = 1e-6) -> np.ndarray:
    """Which columns of (n, f) hardly vary: a spread of at most `share` of the greatest magnitude, also all zeros.

    Rounding gives a column of equal numbers a standard deviation above 0, so that 0 is no threshold; `share` is far above
    the rounding of float32 and far below any spread that features of different images have.
    """
    return np.ptp(values, axis=0) <= share * np.abs(values).max(axis=0)
