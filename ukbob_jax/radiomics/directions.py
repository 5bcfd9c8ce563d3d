"""How counts per direction become one matrix or several: each apart, all together, or weighted by distance."""

import numpy as np

from ukbob_jax.errors import ValuesError

WEIGHTINGS = ("", "infinity", "euclidean", "manhattan", "no_weighting")


def lengths(steps: np.ndarray, spacing_mm: np.ndarray, norm: str) -> np.ndarray:
    """Measure offsets (a, 3) in mm by a norm, (a,).

    Raises:
        ValuesError: unknown norm.
    """
    parts = np.abs(steps) * spacing_mm
    if norm == "infinity":
        return parts.max(1)
    if norm == "euclidean":
        return np.sqrt((parts**2).sum(1))
    if norm == "manhattan":
        return parts.sum(1)
    raise ValuesError(f"weighting={norm!r}: choose one of {', '.join(repr(w) for w in WEIGHTINGS)}.")


def combine(counts: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Sum counts (a, t) over directions with `weights` (a,) into (1, t) float64; as they are without weights."""
    return counts if weights is None else weights[None] @ counts.astype(np.float64)


def mean(per_group: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Average (a, k) over the directions in which an organ has something, `valid` (a, k) bool; NaN where it has nothing."""
    number = valid.sum(0)
    total = np.where(valid, per_group, 0).sum(0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
