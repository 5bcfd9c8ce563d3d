"""Intervals around predicted grades."""

from typing import Any

import numpy as np
import scipy.optimize

from ukbob_jax.errors import ConfigError, MismatchError

BINS = 10  # of a calibration
LEAST = 8  # cases in each


def calibration(predicted: Any, true: Any) -> tuple[list[float], list[float]]:
    """A rising curve from predictions to true Dice: means of bins of like predictions, joined by lines.

    Bins are of equal number; those whose means fall are pooled (isotonic regression of the bins). From 0 to 0 and 1 to 1 at
    the ends, so that it rises everywhere and no two predictions within 0 and 1 become one.

    Args:
        predicted, true: n, of cases that training has not seen; finite.
    Returns:
        Knots for `numpy.interp`: predictions, ascending, and their Dice.
    Raises:
        MismatchError: the shapes differ, or there is nothing.
    """
    said, dice = np.asarray(predicted, np.float64).ravel(), np.asarray(true, np.float64).ravel()
    if said.shape != dice.shape or not len(said):
        raise MismatchError(f"predictions are {said.shape}, truths {dice.shape}: give pairs.")
    order = np.argsort(said, kind="stable")
    bins = np.array_split(order, min(BINS, max(1, len(order) // LEAST)))
    counts = np.array([len(b) for b in bins], float)
    x, y = (np.array([values[b].mean() for b in bins]) for values in (said, dice))
    fitted = scipy.optimize.isotonic_regression(y, weights=counts)
    pools = list(zip(fitted.blocks[:-1], fitted.blocks[1:]))
    x = np.array([np.average(x[a:b], weights=counts[a:b]) for a, b in pools])
    y = fitted.x[fitted.blocks[:-1]]
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1) & (np.diff(x, prepend=-1) > 0)
    return [0.0, *x[inside].tolist(), 1.0], [0.0, *y[inside].tolist(), 1.0]


def conformal_width(predicted: Any, true: Any, coverage: float = 0.9) -> float:
    """Half width of an interval around a predicted Dice that holds the true one with a probability of `coverage`.

    Split conformal prediction: of n absolute errors on held-out cases the ceil((n + 1) coverage)-th smallest. Cases must
    be drawn as new ones will be. 1 where n is too small to promise it.

    Args:
        predicted, true: n, of cases that training has not seen.
        coverage: 0 to 1.
    Raises:
        MismatchError: the shapes differ.
        ConfigError: a coverage outside 0 to 1.
    """
    errors = np.sort(np.abs(np.asarray(predicted, np.float64) - np.asarray(true, np.float64)).ravel())
    if np.shape(predicted) != np.shape(true):
        raise MismatchError(f"predictions are {np.shape(predicted)}, truths {np.shape(true)}: give pairs.")
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage={coverage}: must lie between 0 and 1.")
    rank = int(np.ceil((len(errors) + 1) * coverage))
    return float(errors[rank - 1]) if rank <= len(errors) else 1.0
