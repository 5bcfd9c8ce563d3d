"""U-Score: accuracy and efficiency of a network in one number, beside a pool of networks (U-Bench, Tang et al. 2025).

With v between the 10th and the 90th percentile of the pool scaled to 0..1, and nothing below 0.05:

    a = (IoU - q10) / (q90 - q10)                                 of accuracy
    p, g = (L90 - ln v) / (L90 - L10)                             of parameters and of FLOPs, logarithms
    s = (v - q10) / (q90 - q10)                                   of volumes per second
    e = 3 / (1/p + 1/g + 1/s)                                     efficiency
    U = 100 * 2 / (1/a + 1/e)

The published percentiles, `U_BENCH`, are of 100 networks for 2D images of 256 x 256 pixels. Networks for volumes have
other costs, so that their scores need percentiles of a pool of such networks, measured on one machine: a score means
nothing without its pool.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.errors import ValuesError

FLOOR = 0.05  # of every term
LOW, HIGH = 10, 90  # percentiles


class Cost(NamedTuple):
    """What a network costs; all above 0."""

    parameters_m: float  # millions
    gflops: float  # of one forward pass
    speed: float  # images or volumes per second


class Range(NamedTuple):
    """The 10th and 90th percentile of a pool."""

    low: float
    high: float


class Quantiles(NamedTuple):
    """Percentiles of a pool's costs."""

    log_parameters: Range  # of the logarithm of millions
    log_gflops: Range
    speed: Range


U_BENCH = Quantiles(Range(0.39, 4.32), Range(0.88, 4.20), Range(24.28, 121.63))


def percentiles(values: Sequence[float], what: str) -> Range:
    """Return the 10th and the 90th percentile.

    Raises:
        ValuesError: fewer than two values, or all the same: nothing can be scaled by them.
    """
    found = Range(*np.percentile(values, (LOW, HIGH)).tolist()) if len(values) else Range(0.0, 0.0)
    if not found.high > found.low:
        raise ValuesError(
            f"{what}: {len(values)} networks with one value; a score needs networks that differ in it."
        )
    return found


def quantiles(pool: Sequence[Cost]) -> Quantiles:
    """Return the percentiles of a pool's costs.

    Raises:
        ValuesError: a cost that is not above 0, or a pool whose networks do not differ.
    """
    for cost in pool:
        for name, value in cost._asdict().items():
            if not 0 < value < math.inf:
                raise ValuesError(f"{name}: {value} is not a number above 0.")
    return Quantiles(
        percentiles([math.log(cost.parameters_m) for cost in pool], "parameters"),
        percentiles([math.log(cost.gflops) for cost in pool], "FLOPs"),
        percentiles([cost.speed for cost in pool], "speed"),
    )


def term(value: float, worst: float, best: float) -> float:
    """Scale `worst` to 0 and `best` to 1; what lies beyond is cut off, and nothing is below `FLOOR`."""
    return max(FLOOR, min(1.0, (value - worst) / (best - worst)))


def efficiency(cost: Cost, pool: Quantiles) -> float:
    """Return e, the harmonic mean of the terms of parameters, FLOPs and speed; 0.05 to 1."""
    p = term(math.log(cost.parameters_m), pool.log_parameters.high, pool.log_parameters.low)
    g = term(math.log(cost.gflops), pool.log_gflops.high, pool.log_gflops.low)
    s = term(cost.speed, pool.speed.low, pool.speed.high)
    return 3 / (1 / p + 1 / g + 1 / s)


def u_score(iou: float, accuracy: Range, cost: Cost, pool: Quantiles) -> float:
    """Return U, 5 to 100.

    Args:
        iou: of the network on a data set.
        accuracy: percentiles of the pool's IoU on the same data set.
        cost: of the network.
        pool: percentiles of costs.
    """
    a, e = term(iou, accuracy.low, accuracy.high), efficiency(cost, pool)
    return 100 * 2 / (1 / a + 1 / e)


def table(
    costs: Mapping[str, Cost], ious: Mapping[str, Mapping[str, float]], pool: Quantiles | None = None
) -> list[dict[str, Any]]:
    """Score networks beside each other: JSON values, in the order of `costs`.

    Args:
        costs: of each network of the pool.
        ious: name of a column, such as "in domain" and "zero-shot", -> network -> IoU; each column has percentiles of its
            own, and networks without an IoU have no score in it.
        pool: percentiles of costs; None: of `costs`.
    Returns:
        For each network "network", the fields of `Cost`, "efficiency", and for each column "iou" and "u_score" by its
        name, None where it has no IoU.
    Raises:
        ValuesError: costs or IoUs that do not differ; see `percentiles`.
    """
    pool = quantiles(list(costs.values())) if pool is None else pool
    ranges = {column: percentiles(list(of.values()), f"IoU {column}") for column, of in ious.items()}
    rows = []
    for name, cost in costs.items():
        row: dict[str, Any] = {"network": name, **cost._asdict(), "efficiency": efficiency(cost, pool)}
        for column, of in ious.items():
            iou = of.get(name)
            row[f"iou, {column}"] = iou
            row[f"u_score, {column}"] = None if iou is None else u_score(iou, ranges[column], cost, pool)
        rows.append(row)
    return rows
