"""What a campaign of active learning reached for what it cost: areas under curves, efficiency, comparisons over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from ukbob_jax.errors import ValuesError

LEVEL = 0.05  # below which a difference counts


def area_under(budget: Sequence[float], dice: Sequence[float]) -> float:
    """Mean Dice over the budget: the area under the curve by trapezoids, over the budget's range; one point is its Dice.

    Raises:
        ValuesError: lengths differ, there is no point, or the budget does not grow.
    """
    x, y = np.asarray(budget, float), np.asarray(dice, float)
    if x.shape != y.shape or not x.size or (np.diff(x) <= 0).any():
        raise ValuesError(f"budget curve: {x.size} budgets and {y.size} scores; budgets must grow.")
    return float(y[0]) if x.size == 1 else float(np.trapezoid(y, x) / (x[-1] - x[0]))


def foreground_efficiency(share: Sequence[float], dice: Sequence[float], full: float) -> float:
    """How fast Dice nears that of all labels as foreground is annotated (nnActive): the larger, the less work.

    The rate g of D(x) = full - (full - D(x0)) exp(-g (x - x0)), by least squares, at least 0; NaN with fewer than two points
    or a first point that is not below `full`.

    Args:
        share: of the foreground voxels of the pool that are annotated, 0 to 1, growing.
        dice: at each.
        full: Dice with every label.
    """
    x, y = np.asarray(share, float), np.asarray(dice, float)
    if x.size < 2 or not y[0] < full or not x[-1] > x[0]:
        return float("nan")

    def curve(x: np.ndarray, rate: float) -> np.ndarray:
        return full - (full - y[0]) * np.exp(-rate * (x - x[0]))

    start = 1 / (x[-1] - x[0])
    found, _ = optimize.curve_fit(curve, x, y, p0=[start], bounds=(0, np.inf))
    return float(found[0])


class Compared(NamedTuple):
    """One strategy beside another over seeds."""

    wins: float  # fraction of rounds after the first in which it is better with p < LEVEL
    difference: float  # of the areas under the curves, mean over seeds
    p: float  # of that difference, two-sided paired t test; NaN with one seed


def compare(first: Mapping[int, Sequence[float]], second: Mapping[int, Sequence[float]]) -> Compared:
    """Compare the first strategy with the second on the seeds that both have.

    Args:
        first: seed -> Dice of each round, then the area under the curve.
        second: the same.
    """
    seeds = sorted(first.keys() & second.keys())
    a, b = (np.array([list(of[seed]) for seed in seeds], float) for of in (first, second))
    if a.shape != b.shape or a.ndim != 2:
        return Compared(float("nan"), float("nan"), float("nan"))
    p = [_paired_t(a[:, column] - b[:, column]) for column in range(a.shape[1])]
    better = [
        value < LEVEL and (a - b)[:, column].mean() > 0 for column, value in enumerate(p[:-1]) if column
    ]
    return Compared(
        float(np.mean(better)) if better and len(seeds) > 1 else float("nan"),
        float((a - b)[:, -1].mean()),
        p[-1],
    )


def _paired_t(change: np.ndarray) -> float:
    """Two-sided p that the mean of differences is 0; NaN with one, 1 or 0 where all are equal."""
    if change.size < 2:
        return float("nan")
    if np.ptp(change) < 1e-12:
        return 1.0 if abs(change[0]) < 1e-12 else 0.0
    return float(stats.ttest_1samp(change, 0).pvalue)  # pyright: ignore[reportAttributeAccessIssue]
