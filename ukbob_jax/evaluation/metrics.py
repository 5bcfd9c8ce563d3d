"""How well a label map agrees with another: per class, all classes in one pass.

Voxels where the truth is 255 take part in nothing. What each metric is when a class is absent:

| | absent in both | only in the prediction | only in the truth |
|---|---|---|---|
| dice, iou | NaN | 0 | 0 |
| sensitivity | NaN | NaN | 0 |
| specificity | 1 | below 1 | 1 |
| volume_error | NaN | inf | -1 |
| hd95, hd, assd | NaN | inf | inf |
| nsd | NaN | 0 | 0 |

NaN: the metric does not apply; inf: it failed. Means say how many of each there were, and of what failed there is a
penalised mean, see `failures`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ValuesError
from ukbob_jax.evaluation.lesions import Lesions, lesions
from ukbob_jax.evaluation.statistics import bootstrap_interval, equity, paired, volume_agreement
from ukbob_jax.evaluation.surface import SurfaceMetrics, surface
from ukbob_jax.volumes import array_checks

__all__ = [
    "Lesions",
    "SurfaceMetrics",
    "bootstrap_interval",
    "confusion",
    "dice",
    "equity",
    "iou",
    "lesions",
    "overlaps",
    "paired",
    "sensitivity",
    "specificity",
    "surface",
    "volume_agreement",
    "volume_error",
]

Array = jax.Array | np.ndarray


def dice(pred: Array, true: Array, num_classes: int) -> Array:
    """2 |P & T| / (|P| + |T|) of each class.

    Args:
        pred: label map of any shape, integer, below `num_classes`.
        true: label map of the same shape; 255 is ignored.
        num_classes: k; a static number.

    Returns:
        `k`: NaN where the class is in neither map. float64 for numpy arrays; float32 for jax arrays, for which it
        also works inside jit; there a predicted label of `num_classes` or more counts as wrong.

    Raises:
        ValuesError: the shapes differ, or (not inside jit) a label is `num_classes` or more.
    """
    return _dice(*_counts(pred, true, num_classes))


def iou(pred: Array, true: Array, num_classes: int) -> Array:
    """|P & T| / |P or T| of each class; arguments, result and errors of `dice`."""
    return _iou(*_counts(pred, true, num_classes))


def sensitivity(pred: Array, true: Array, num_classes: int) -> Array:
    """|P & T| / |T| of each class, NaN where the truth has none; arguments and errors of `dice`."""
    return _sensitivity(*_counts(pred, true, num_classes))


def specificity(pred: Array, true: Array, num_classes: int) -> Array:
    """Fraction of the voxels outside the true class that the prediction leaves outside; arguments of `dice`."""
    return _specificity(*_counts(pred, true, num_classes))


def volume_error(pred: Array, true: Array, num_classes: int) -> Array:
    """(|P| - |T|) / |T| of each class: 0.1 is a tenth too large; inf where only predicted; arguments of `dice`."""
    return _volume_error(*_counts(pred, true, num_classes))


def overlaps(
    pred: np.ndarray, true: np.ndarray, num_classes: int, voxel_ml: float = 1.0
) -> dict[str, np.ndarray]:
    """Compute all of the above from one count over the volume, and both maps' volumes (mL): name -> `k`."""
    counts = _counts(np.asarray(pred), np.asarray(true), num_classes)
    values = {
        "dice": _dice(*counts),
        "iou": _iou(*counts),
        "sensitivity": _sensitivity(*counts),
        "specificity": _specificity(*counts),
        "volume_error": _volume_error(*counts),
        "volume_ml": counts[1] * voxel_ml,
        "true_volume_ml": counts[2] * voxel_ml,
    }
    return {name: np.asarray(value) for name, value in values.items()}


def confusion(pred: Array, true: Array, num_classes: int) -> Array:
    """How many voxels of true class j are predicted as i: `k k`, `[i, j]`, from one count over the volume.

    int64 for numpy arrays, int32 for jax arrays (a class of 2**31 voxels would overflow).

    Raises:
        ValuesError: as `dice`.
    """
    if np.shape(pred) != np.shape(true):
        raise ValuesError(
            f"prediction has shape {np.shape(pred)}, truth {np.shape(true)}: bring them to one grid."
        )
    k = num_classes
    pred, true = array_checks.label_array("prediction", pred), array_checks.label_array("truth", true)
    if isinstance(pred, jax.Array) or isinstance(true, jax.Array):
        if not any(isinstance(labels, Tracer) for labels in (pred, true)):
            _known_labels(np.asarray(pred).ravel(), np.asarray(true).ravel(), k)
        pred, true = jnp.ravel(pred).astype(jnp.int32), jnp.ravel(true).astype(jnp.int32)
        wrong = jnp.where(true == 0, min(1, k - 1), 0)  # nothing can be raised in a compiled program
        pred = jnp.where((pred < 0) | (pred >= k), wrong, pred)
        cell = jnp.where((true < 0) | (true >= k), k * k, pred * k + true)
        return jnp.bincount(cell, length=k * k + 1)[:-1].reshape(k, k)
    pred, true = _known_labels(np.asarray(pred).ravel(), np.asarray(true).ravel(), k)
    cell = pred.astype(np.int32 if k < 2**15 else np.int64) * k + true
    return np.bincount(cell, minlength=k * k).reshape(k, k)


def _known_labels(pred: np.ndarray, true: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The voxels that are not ignored, after a check that their labels are 0 to k - 1."""
    if (true == IGNORE).any():
        pred, true = pred[true != IGNORE], true[true != IGNORE]
    for what, labels in (("prediction", pred), ("truth", true)):
        if labels.size and (labels.min() < 0 or labels.max() >= k):
            raise ValuesError(
                f"{what} has label {labels.max() if labels.max() >= k else labels.min()}, not in 0..{k - 1}; "
                "map its labels, or set them to 255 in the truth."
            )
    return pred, true


def _counts(pred: Array, true: Array, num_classes: int) -> tuple[Array, Array, Array]:
    """Voxels of each class in both, in the prediction, and in the truth: three of `k`."""
    table = confusion(pred, true, num_classes)
    return table.diagonal(), table.sum(1), table.sum(0)


def _dice(both: Array, in_pred: Array, in_true: Array) -> Array:
    return _ratio(2 * both, in_pred + in_true)


def _iou(both: Array, in_pred: Array, in_true: Array) -> Array:
    return _ratio(both, in_pred + in_true - both)


def _sensitivity(both: Array, in_pred: Array, in_true: Array) -> Array:
    return _ratio(both, in_true)


def _specificity(both: Array, in_pred: Array, in_true: Array) -> Array:
    outside = in_true.sum() - in_true
    return _ratio(outside - (in_pred - both), outside)


def _volume_error(both: Array, in_pred: Array, in_true: Array) -> Array:
    xp = jnp if isinstance(in_true, jax.Array) else np
    return xp.where((in_true == 0) & (in_pred > 0), np.inf, _ratio(in_pred - in_true, in_true))


def _ratio(part: Array, whole: Array) -> Array:
    """`part / whole`, NaN where `whole` is 0, without a warning."""
    xp = jnp if isinstance(whole, jax.Array) else np
    return xp.where(whole > 0, part / xp.maximum(whole, 1), np.nan)
