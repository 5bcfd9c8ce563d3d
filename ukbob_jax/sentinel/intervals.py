"""Intervals around predicted grades."""

from typing import Any

import numpy as np
import scipy.optimize

from ukbob_jax.errors import ConfigError, MismatchError


def calibration(predicted: Any, true: Any) -> tuple[list[float], list[float]]:
    """The rising curve from predictions to true Dice that has the least squared error (isotonic regression).

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
    x, which, counts = np.unique(said, return_inverse=True, return_counts=True)
    y = scipy.optimize.isotonic_regression(np.bincount(which, dice) / counts, weights=counts).x
    # of a run of equal values its ends are enough
    ends = np.ones(len(x), bool)
    ends[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return x[ends].tolist(), np.clip(y[ends], 0, 1).tolist()


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
