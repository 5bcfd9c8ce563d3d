"""Distances between the surfaces of two label maps, all classes in one pass.

A voxel is on the surface of its class if one of its six neighbours is of another class or outside the volume
(MONAI's boundary voxels), so the surfaces of all classes fit into one label map. Distances run between centres of
surface voxels, in mm.

Nearest surface voxels are found ring by ring: every voxel whose distance is open looks at the offsets around it,
nearest first, for a surface voxel of its class. In a usable prediction nearly all are found within a few voxels;
the few that are not ask a k-d tree of their class. Both are exact.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ValuesError
from ukbob_jax.volumes import array_checks

REACH = 3  # voxels along each axis that rings look at before the tree takes over


class SurfaceMetrics(NamedTuple):
    """Per class, `k`, float64. One map without the class: distances inf, nsd 0; both without: NaN."""

    hd95: np.ndarray  # mm, the larger of the two directions' 95th percentiles (linear interpolation)
    hd: np.ndarray  # mm, the largest distance of both directions
    assd: np.ndarray  # mm, mean over the distances of both directions together
    nsd: np.ndarray  # fraction of both surfaces within the tolerance of the other


def surface(
    pred: np.ndarray,
    true: np.ndarray,
    spacing_mm: tuple[float, float, float],
    num_classes: int,
    tolerance_mm: float | np.ndarray = 1.0,
) -> SurfaceMetrics:
    """Measure surface distances of each class, by MONAI's boundary-voxel definitions.

    Args:
        pred: `x y z`, integer labels below `num_classes`.
        true: `x y z`; voxels of 255 are in no class of either map.
        spacing_mm: voxel size along x y z.
        num_classes: k, at most 255.
        tolerance_mm: distance that counts as agreement in `nsd`; one, or one per class.

    Raises:
        ValuesError: the shapes differ, are not 3-D, a label is not in 0..k-1, or another argument cannot be used.
    """
    tolerance = np.asarray(tolerance_mm, np.float32)
    if not 1 <= num_classes <= IGNORE or tolerance.shape not in ((), (num_classes,)):
        raise ValuesError(
            f"surface: {num_classes} classes with tolerances of shape {tolerance.shape}; give at most {IGNORE} "
            "classes, and one tolerance or one per class."
        )
    if not (tolerance >= 0).all():
        raise ValuesError(f"surface: tolerance {tolerance_mm} mm; give 0 or more.")
    if len(spacing_mm) != 3 or not all(0 < s < np.inf for s in spacing_mm):
        raise ValuesError(f"surface: spacing {tuple(spacing_mm)} must be three positive numbers, mm.")
    pred, true = _checked(pred, true, num_classes)
    tolerance = np.broadcast_to(tolerance, (num_classes,))
    surfaces = _surface_labels(pred), _surface_labels(true)
    pred_to_true = _distances(surfaces[0], surfaces[1], spacing_mm, num_classes)
    true_to_pred = _distances(surfaces[1], surfaces[0], spacing_mm, num_classes)
    rows = [_summary(a, b, t) for a, b, t in zip(pred_to_true, true_to_pred, tolerance)]
    return SurfaceMetrics(*np.array(rows, np.float64).T)


class _Distances(NamedTuple):
    """From the surface voxels of one class to the other map's surface of it."""

    zeros: int  # surface voxels that coincide
    others: np.ndarray  # mm, ascending, float32; inf where the other map lacks the class


def _checked(pred: np.ndarray, true: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Check both maps and return them as uint8, 255 where the truth is ignored."""
    pred = np.asarray(array_checks.label_array("prediction", pred))
    true = np.asarray(array_checks.label_array("truth", true))
    if pred.shape != true.shape or pred.ndim != 3:
        raise ValuesError(
            f"prediction has shape {pred.shape}, truth {true.shape}: both must be one x y z grid."
        )
    ignored = true == IGNORE
    for what, labels in (("prediction", pred), ("truth", true)):
        wrong = labels[((labels < 0) | (labels >= num_classes)) & ~ignored]
        if wrong.size:
            raise ValuesError(
                f"{what} has label {wrong[0]}, not in 0..{num_classes - 1}; map its labels first."
            )
    true = true.astype(np.uint8)
    return np.where(ignored, np.uint8(IGNORE), pred.astype(np.uint8)), true


def _surface_labels(labels: np.ndarray) -> np.ndarray:
    """Keep labels on surfaces only, 255 elsewhere, with a margin of `REACH` voxels of 255: `x+2r y+2r z+2r`, uint8."""
    inside = np.ones(labels.shape, bool)
    for axis in range(3):
        along = np.moveaxis(labels, axis, 0)
        kept = np.moveaxis(inside, axis, 0)
        same = along[1:] == along[:-1]
        kept[1:] &= same
        kept[:-1] &= same
        kept[[0, -1]] = False
    return np.pad(np.where(inside, np.uint8(IGNORE), labels), REACH, constant_values=IGNORE)


def _offsets(spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps to neighbours, nearest first (`n 3`), and their lengths (mm, `n`).

    Only steps shorter than any step out of the cube are kept: a hit among them is the nearest there is.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    steps = np.stack(np.meshgrid(*[np.arange(-REACH, REACH + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    length = np.sqrt(((steps * spacing) ** 2).sum(1))
    kept = np.flatnonzero((length > 0) & (length < (REACH + 1) * spacing.min()))
    kept = kept[np.argsort(length[kept], kind="stable")]
    return steps[kept], length[kept]


def _distances(
    source: np.ndarray, target: np.ndarray, spacing_mm: tuple[float, float, float], num_classes: int
) -> list[_Distances]:
    """Measure the distance from every surface voxel of `source` to the nearest of its class in `target`, by class."""
    flat_source, flat_target = source.ravel(), target.ravel()
    sizes = np.bincount(flat_source, minlength=256)
    present = np.bincount(flat_target, minlength=256) > 0
    present[IGNORE] = False
    open_at = np.flatnonzero((flat_source != flat_target) & (flat_source != IGNORE))
    labels = flat_source[open_at]
    found = np.full(open_at.size, np.inf, np.float32)
    waiting = np.flatnonzero(present[labels])
    strides = np.array([source.shape[1] * source.shape[2], source.shape[2], 1])
    for step, length in zip(*_offsets(spacing_mm)):
        if waiting.size == 0:
            break
        hit = flat_target[open_at[waiting] + int(step @ strides)] == labels[waiting]
        found[waiting[hit]] = length
        waiting = waiting[~hit]
    _ask_trees(found, waiting, open_at, labels, target, spacing_mm)
    order = np.lexsort((found, labels))
    ends = np.searchsorted(labels[order], np.arange(num_classes + 1))
    parts = [found[order[a:b]] for a, b in itertools.pairwise(ends)]
    return [_Distances(int(sizes[c]) - part.size, part) for c, part in enumerate(parts)]


def _ask_trees(
    found: np.ndarray,
    waiting: np.ndarray,
    open_at: np.ndarray,
    labels: np.ndarray,
    target: np.ndarray,
    spacing_mm: tuple[float, float, float],
) -> None:
    """Fill `found` for the voxels that are `waiting`, from a k-d tree per class of `target`."""
    spacing = np.asarray(spacing_mm, np.float64)
    for label in np.unique(labels[waiting]):
        mine = waiting[labels[waiting] == label]
        tree = KDTree(np.argwhere(target == label) * spacing, balanced_tree=False, compact_nodes=False)
        points = np.stack(np.unravel_index(open_at[mine], target.shape), -1) * spacing
        found[mine] = tree.query(points, workers=-1)[0]


def _summary(
    pred_to_true: _Distances, true_to_pred: _Distances, tolerance_mm: np.float32
) -> tuple[float, float, float, float]:
    """Return hd95, hd, assd and nsd of one class."""
    sizes = [d.zeros + d.others.size for d in (pred_to_true, true_to_pred)]
    if not all(sizes):
        return (np.inf, np.inf, np.inf, 0.0) if any(sizes) else (np.nan, np.nan, np.nan, np.nan)
    hd95 = max(_percentile(d, 95.0) for d in (pred_to_true, true_to_pred))
    hd = max(float(d.others[-1]) if d.others.size else 0.0 for d in (pred_to_true, true_to_pred))
    mean = sum(float(d.others.sum(dtype=np.float64)) for d in (pred_to_true, true_to_pred)) / sum(sizes)
    # float32 on both sides, so that three voxels of 0.7 mm are within 2.1 mm
    near = sum(
        d.zeros + int(np.searchsorted(d.others, tolerance_mm, side="right"))
        for d in (pred_to_true, true_to_pred)
    )
    return hd95, hd, mean, near / sum(sizes)


def _percentile(distances: _Distances, percent: float) -> float:
    """Return the percentile with linear interpolation, as `np.percentile` of zeros and others together."""
    zeros, others = distances
    at = percent / 100 * (zeros + others.size - 1)
    low = int(np.floor(at))
    a, b = (
        float(others[i - zeros]) if i >= zeros else 0.0 for i in (low, min(low + 1, zeros + others.size - 1))
    )
    return a + (at - low) * (b - a)
