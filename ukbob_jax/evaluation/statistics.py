"""Compare scores over many scans: intervals, paired comparisons, fairness between groups, agreement of volumes."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ukbob_jax.errors import ValuesError

MANY = 2000  # values above which resampling gives what a normal distribution does


def mean_defined(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if all are."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


class Paired(NamedTuple):
    """How the second of two methods does on the same scans; differences are second minus first."""

    count: int  # scans on which both are defined
    mean: float  # difference
    low: float  # bootstrap interval of the mean difference
    high: float
    p: float  # two-sided, of sign flips: how often chance alone differs as much
    worst: float  # the most negative difference
    share_worse: float  # fraction of scans with a negative difference


class Equity(NamedTuple):
    """Dice of groups of people beside each other; `scaled` is at most `overall`, and equal where all groups are."""

    overall: float  # mean over scans
    groups: dict[str, float]  # mean of each group
    worst: float
    gap: float  # best minus worst group
    scaled: float  # overall / (1 + alpha * sum over groups |group - overall|)
    scaled_std: float  # overall / (1 + alpha * sample standard deviation of the groups)


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.nanmean,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over subjects.

    Args:
        values: `n`, one number a subject; NaN where undefined.
        statistic: called as `statistic(resampled, axis=-1)` on `samples n`.
        level: fraction of resamples inside the interval.
        samples: number of resamples.
        seed: makes the interval reproducible.

    Returns:
        (low, high); (NaN, NaN) without a defined value.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    if values.size == 1:  # every resample is that value; SciPy asks for two
        only = float(statistic(values, axis=-1))
        return only, only
    found = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=samples,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean over subjects: by bootstrap, or of more than `MANY` values the normal one, which it equals."""
    values = np.asarray(values, np.float64)
    if len(values) <= MANY:
        return bootstrap_interval(values, np.mean, seed=seed)
    reach = stats.norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def unpaired(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Compare the means of two groups of different people.

    Args:
        first: `n` scores.
        second: `m` scores.
        samples: random divisions of all people into groups of these sizes, or every one where there are no more. Of
            more than `MANY` people Welch's test takes their place.
        seed: of the divisions.

    Returns:
        The mean of the first minus that of the second, and the two-sided p; NaN and 1 where a group is empty.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not a.size or not b.size:
        return float("nan"), 1.0
    difference = float(a.mean() - b.mean())
    if a.size + b.size > MANY:
        return difference, float(stats.ttest_ind(a, b, equal_var=False).pvalue)  # pyright: ignore
    pooled, size = np.concatenate([a, b]), a.size
    if math.comb(pooled.size, size) <= samples:
        chosen, first_seen = np.array(list(itertools.combinations(range(pooled.size), size))), 0
    else:
        order = np.random.default_rng(seed).permuted(np.tile(np.arange(pooled.size), (samples, 1)), axis=1)
        chosen, first_seen = order[:, :size], 1  # the division that was found is one more
    inside = pooled[chosen].sum(axis=1)
    means = inside / size - (pooled.sum() - inside) / b.size
    as_far = np.abs(means).round(12) >= abs(round(difference, 12))  # sums differ by the order of adding
    return difference, float((as_far.sum() + first_seen) / (len(means) + first_seen))


def paired(first: Sequence[float], second: Sequence[float], samples: int = 10_000, seed: int = 0) -> Paired:
    """Compare two methods scan by scan.

    The test flips the signs of the differences: every way where these are at most `samples`, else `samples` random
    ones. With n scans p is at least 2 / 2**n, so that five scans can never be significant at 0.05.

    Args:
        first: `n` scores; NaN where undefined, such a scan is left out.
        second: `n` scores of the same scans in the same order.

    Raises:
        ValuesError: the lengths differ.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValuesError(
            f"paired: {a.shape} and {b.shape} scores; give both methods' scores of the same scans."
        )
    change = (b - a)[np.isfinite(a) & np.isfinite(b)]
    n = change.size
    if not n:
        return Paired(0, *(float("nan"),) * 6)
    p = _sign_flips(change, samples, seed) if n > 1 else 1.0
    low, high = bootstrap_interval(change, np.mean, seed=seed)
    return Paired(n, float(change.mean()), low, high, p, float(change.min()), float((change < 0).mean()))


def _sign_flips(change: np.ndarray, samples: int, seed: int) -> float:
    """Two-sided p of at least two differences: how often a mean with random signs is as far from 0 as theirs."""

    def distance(values: np.ndarray, axis: int) -> np.ndarray:
        return np.abs(values.mean(axis)).round(
            12
        )  # equal means stay equal, in whatever order they were added

    result = stats.permutation_test(
        (change,),
        distance,
        permutation_type="samples",
        alternative="greater",
        n_resamples=samples,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def equity(scores: Sequence[float], groups: Sequence[str], alpha: float = 1.0) -> Equity:
    """Compute the equity-scaled score (Tian et al. 2024, FairSeg), in both of its published forms.

    Args:
        scores: `n`, one a person; NaN is left out.
        groups: `n` names.
        alpha: how much differences cost.

    Raises:
        ValuesError: the lengths differ, or no score is defined.
    """
    values, names = np.asarray(scores, np.float64), np.asarray(groups, str)
    defined = np.isfinite(values)
    if values.shape != names.shape or not defined.any():
        raise ValuesError(
            f"equity: {values.shape} scores with {names.shape} groups; give one group per score."
        )
    values, names = values[defined], names[defined]
    means = {str(g): float(values[names == g].mean()) for g in np.unique(names)}
    overall, of_groups = float(values.mean()), np.array(list(means.values()))
    spread = float(of_groups.std(ddof=1)) if of_groups.size > 1 else 0.0
    return Equity(
        overall=overall,
        groups=means,
        worst=float(of_groups.min()),
        gap=float(np.ptp(of_groups)),
        scaled=overall / (1 + alpha * float(np.abs(of_groups - overall).sum())),
        scaled_std=overall / (1 + alpha * spread),
    )


class Agreement(NamedTuple):
    """How predicted volumes follow the true ones over scans; NaN below three scans or without any spread."""

    count: int
    pearson: float
    concordance: float  # Lin's: also falls when all volumes are too large
    mean_error: float  # mean of predicted minus true, in the volumes' unit
    mean_absolute_share: float  # mean of |predicted - true| / true, over scans that have the organ
    mean_absolute_share_penalised: float  # over all scans: at most 1 each, 1 where it is missed or invented
    missed: int  # scans whose prediction lacks the organ
    invented: int  # scans whose truth lacks it: not in `mean_absolute_share`


def volume_agreement(predicted: Sequence[float], true: Sequence[float]) -> Agreement:
    """Compare the volumes of one organ over scans; scans without the organ in either map are left out.

    Raises:
        ValuesError: the lengths differ.
    """
    p, t = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if p.shape != t.shape or p.ndim != 1:
        raise ValuesError(
            f"volumes of {p.shape} predictions and {t.shape} truths; give one of each per scan."
        )
    seen = (p > 0) | (t > 0)
    p, t = p[seen], t[seen]
    error = float((p - t).mean()) if p.size else float("nan")
    there = t > 0
    relative = np.abs(p - t)[there] / t[there]
    capped = np.append(np.minimum(relative, 1), np.ones(np.count_nonzero(~there)))
    pearson = lin = float("nan")
    if p.size >= 3 and np.ptp(p) > 0 and np.ptp(t) > 0:
        pearson = float(stats.pearsonr(p, t).statistic)  # pyright: ignore[reportAttributeAccessIssue]
        lin = float(2 * np.cov(p, t, bias=True)[0, 1] / (p.var() + t.var() + (p.mean() - t.mean()) ** 2))
    return Agreement(
        count=p.size,
        pearson=pearson,
        concordance=lin,
        mean_error=error,
        mean_absolute_share=float(relative.mean()) if relative.size else float("nan"),
        mean_absolute_share_penalised=float(capped.mean()) if capped.size else float("nan"),
        missed=int((p == 0).sum()),
        invented=int((t == 0).sum()),
    )
