"""SOLF, the Specialized Organ Label Filter: which labels of a cohort hold, judged by size and shape (UKBOB).

An organ's label is flagged when at least two of its three measures leave the range that this organ has in the cohort.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import ukbob_jax
from ukbob_jax.errors import MismatchError, ValuesError
from ukbob_jax.quality.limits import MIN_OUTSIDE, Limits
from ukbob_jax.quality.measures import FEATURES, OrganMeasures

MAD_TO_SIGMA = 1.4826  # of a normal distribution
LEAST_SPREAD = 1e-3  # of a logarithm: measures that hardly vary do not differ for a rounding error
_LEAST_RATIO = 1e-18  # of variances; 1 - this is 1 in float64, so an eccentricity of 1 survives the logarithm


def fit(
    measures: OrganMeasures,
    epsilon: float = 2.0,
    *,
    groups: Sequence[str] | None = None,
    min_count: int = 10,
) -> Limits:
    """Fit limits by the paper's rule: the lowest and the highest `epsilon` percent of each measure are out of range.

    Limits are order statistics, so a strictly increasing transform of a measure changes no verdict: with n values in
    ascending order v[0..n-1] and r = epsilon / 100 * (n - 1), the range is v[ceil(r)] to v[n - 1 - ceil(r)], both
    inside. These are the values that linearly interpolated percentiles (numpy's default) keep of the same cohort.
    `epsilon` 0 keeps all. Absent organs and undefined (NaN) measures take no part.

    Args:
        measures: fields (n, num_classes), stacked over subjects.
        epsilon: percent, 0 to below 50.
        groups: n names, such as each subject's sex; every group gets limits of its own.
        min_count: a class seen fewer times in a group is not judged there: its limits are infinite.
    Raises:
        ValuesError: `epsilon` is out of range, or there is no subject.
        MismatchError: not one group name per subject.
    """
    if not 0 <= epsilon < 50:
        raise ValuesError(f"epsilon={epsilon}: must be from 0 to below 50 percent at either end.")

    def bounds(ordered: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cut = np.ceil(epsilon / 100 * (count - 1) - 1e-9).astype(np.int64)
        return _pick(ordered, cut), _pick(ordered, count - 1 - cut)

    rule = {"name": "percentile", "epsilon": float(epsilon), "min_count": int(min_count)}
    return _fit(measures, bounds, groups, min_count, rule)


def fit_robust(
    measures: OrganMeasures,
    deviations: float = 3.5,
    *,
    groups: Sequence[str] | None = None,
    min_count: int = 10,
) -> Limits:
    """Fit limits at the median ± `deviations` robust standard deviations (1.4826 MAD) of every measure of every organ.

    Percentiles discard the same share of a clean and of a noisy cohort; these limits follow the noise. The spread is
    taken where the measures are near normal: logarithms of body fraction, of sphericity and of the ratio of the least
    to the greatest variance, 1 - eccentricity². It is taken as 0.1 % at least, so that an organ whose measures are all
    alike is not flagged for the last digit.

    Args, Raises: as for `fit`; `deviations` is positive.
    """
    if not deviations > 0:
        raise ValuesError(f"deviations={deviations}: must be positive.")

    def bounds(ordered: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        middle, spread = middle_and_spread(to_log_scale(np.where(np.isfinite(ordered), ordered, np.nan)))
        a, b = (_from_log_scale(middle + sign * deviations * spread) for sign in (-1, 1))
        return np.minimum(a, b), np.maximum(a, b)

    rule = {"name": "robust", "deviations": float(deviations), "min_count": int(min_count)}
    return _fit(measures, bounds, groups, min_count, rule)


def drop_small_organs(measures: OrganMeasures, min_voxels: int) -> OrganMeasures:
    """Count organs as absent, so that they are never flagged, whose median size is under `min_voxels`.

    A few voxels have no shape worth judging: one more or less moves every measure.

    Args:
        measures: fields (n, num_classes).
    """
    voxels = np.asarray(measures.voxels)
    seen = np.ma.masked_equal(voxels, 0)
    median = np.ma.filled(np.ma.median(seen, axis=0), 0)
    return measures._replace(voxels=np.where(median >= min_voxels, voxels, 0))


def outside(measures: OrganMeasures, limits: Limits, groups: Sequence[str] | str | None = None) -> np.ndarray:
    """Find which measures leave their range, (..., num_classes, 3 features); undefined ones do.

    Those of absent organs, and of classes seen too rarely to have limits, never do.

    Args:
        measures: of one subject, (num_classes,), or of n.
        groups: the subject's group, or one per subject, when `limits` have groups.
    Raises:
        MismatchError: other classes than the limits', or a group they do not have.
    """
    values = features(measures)
    if values.shape[-2] != limits.low.shape[1]:
        raise MismatchError(
            f"{values.shape[-2]} classes measured, but limits for {limits.low.shape[1]}: fit them again."
        )
    if groups is None and len(limits.groups) > 1:
        raise MismatchError(
            f"the limits have groups {', '.join(limits.groups)}: say which each subject belongs to."
        )
    unknown = set(np.unique(groups)) - set(limits.groups) if groups is not None else ()
    if unknown:
        raise MismatchError(f"groups {sorted(unknown)} are not among the limits' {', '.join(limits.groups)}.")
    index = 0 if groups is None else np.vectorize(limits.groups.index, otypes=[np.int64])(groups)
    low, high = limits.low[index], limits.high[index]
    judged = (np.isfinite(low) | np.isfinite(high)).any(-1) & (np.asarray(measures.voxels) > 0)
    return ~((values >= low) & (values <= high)) & judged[..., None]


def flag(
    measures: OrganMeasures,
    limits: Limits,
    min_outside: int = MIN_OUTSIDE,
    *,
    groups: Sequence[str] | str | None = None,
) -> np.ndarray:
    """Find labels not to trust: `min_outside` of the three measures are out of range.

    A missing organ is never flagged; an undefined measure counts as out of range. Class 0 is judged like the others.

    Returns:
        Bool (n, num_classes) or (num_classes,).

    Raises:
        MismatchError: as for `outside`.
        ValuesError: `min_outside` is not 1, 2 or 3.
    """
    return apply_limits(measures, limits, groups, min_outside).flagged


class Judgement(NamedTuple):
    """What limits say of labels, (..., num_classes): nothing for organs that are absent or not judged."""

    outside: np.ndarray  # bool (..., num_classes, 3 features), as `outside`
    flagged: np.ndarray  # bool (..., num_classes), as `flag`


def apply_limits(
    measures: OrganMeasures,
    limits: Limits,
    groups: Sequence[str] | str | None = None,
    min_outside: int | None = None,
) -> Judgement:
    """Judge labels, as `flag` does, and also return which measures are out of range.

    Args:
        measures, groups: as for `outside`; `Limits.groups_of` names the groups.
        min_outside: None: as the limits were fitted for.
    Raises:
        MismatchError, ValuesError: as for `flag`.
    """
    number = limits.min_outside if min_outside is None else min_outside
    if number not in (1, 2, 3):
        raise ValuesError(f"min_outside={number}: choose 1, 2 or 3 of the three measures.")
    out = outside(measures, limits, groups)
    return Judgement(out, out.sum(-1) >= number)


def features(measures: OrganMeasures) -> np.ndarray:
    """Return the three measures the rule looks at, (..., num_classes, 3), float64."""
    return np.stack([np.asarray(getattr(measures, name), np.float64) for name in FEATURES], -1)


def _fit(
    measures: OrganMeasures,
    bounds: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    groups: Sequence[str] | None,
    min_count: int,
    rule: dict[str, Any],
) -> Limits:
    """Make limits by `bounds`, which is given a group's values in ascending order (n k 3) and how many there are (k 3)."""
    values = np.where((np.asarray(measures.voxels) > 0)[..., None], features(measures), np.nan)  # n k 3
    if values.ndim != 3 or not len(values):
        raise ValuesError(
            f"measures of shape {values.shape[:-1]}: need (subjects, classes). Stack them first."
        )
    names = ("",) if groups is None else tuple(sorted(set(groups)))
    if groups is not None and len(groups) != len(values):
        raise MismatchError(f"{len(groups)} group names for {len(values)} subjects: need one each.")
    versions = {"ukbob_jax": ukbob_jax.__version__, "numpy": np.__version__, "subjects": len(values)}
    low, high, counts = [], [], []
    for name in names:
        ordered = np.sort(
            values if groups is None else values[np.asarray(groups) == name], axis=0
        )  # NaN last
        count = np.isfinite(ordered).sum(0)  # k 3
        enough = count >= max(min_count, 1)
        a, b = bounds(ordered, count)
        low.append(np.where(enough, a, -np.inf))
        high.append(np.where(enough, b, np.inf))
        counts.append(count.max(1))
    return Limits(np.stack(low), np.stack(high), np.stack(counts), names, rule, versions)


def _pick(ordered: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Take `ordered` (n k 3) at `index` (k 3) along n; any value where the index is out of range."""
    return np.take_along_axis(ordered, np.clip(index, 0, len(ordered) - 1)[None], 0)[0]


def middle_and_spread(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute median and robust standard deviation, at least `LEAST_SPREAD`, along the first axis.

    Args:
        scaled: (n, num_classes, 3), on the scales of `to_log_scale`; NaN is left out.
    Returns:
        (middle, spread), each (num_classes, 3); where there is no value, NaN and `LEAST_SPREAD`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # classes that nobody has
        middle = np.nanmedian(scaled, axis=0)
        deviation = np.nanmedian(np.abs(scaled - middle), axis=0)
    return middle, np.fmax(MAD_TO_SIGMA * deviation, LEAST_SPREAD)


def to_log_scale(values: np.ndarray) -> np.ndarray:
    """Bring features (..., 3) to the scale on which they are near normal, as `fit_robust` says."""
    fraction, sphericity, eccentricity = np.moveaxis(values, -1, 0)
    ratio = np.maximum(1 - eccentricity**2, _LEAST_RATIO)
    with np.errstate(divide="ignore"):  # absent organs: 0
        return np.log(np.stack([fraction, sphericity, ratio], -1))


def _from_log_scale(scaled: np.ndarray) -> np.ndarray:
    fraction, sphericity, ratio = np.moveaxis(np.exp(np.minimum(scaled, 700)), -1, 0)
    return np.stack([fraction, sphericity, np.sqrt(np.maximum(1 - ratio, 0))], -1)
