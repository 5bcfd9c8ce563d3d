"""Label maps of training cases on the grid of the preprocessed image, as nnU-Net 2.8.1 brings them there.

Each label's mask is interpolated by itself, and a voxel gets the label with the largest value (`resize_segmentation` of
batchgenerators 0.25.5; until 0.25.1 it cut each mask at one half, the larger ids last, which differs at ties and where
three labels meet). Arrays are z y x of the file after `transpose_forward`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ukbob_jax.inference.nnunet import resample


def resize(
    labels: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    arguments: Mapping[str, Any],
) -> np.ndarray:
    """Bring a label map to another shape, as nnU-Net's `resample_data_or_seg_to_shape` with `is_seg`.

    Args:
        labels: z y x, integers; -1 outside the mask of what is not 0, a label like others here.
        shape: the new one.
        spacing: of `labels`, mm.
        new_spacing: of the result, mm.
        arguments: of that function: `order`, `order_z`, `force_separate_z`; those left out have its defaults.
    Returns:
        z y x, of the type of `labels`.
    Raises:
        ValueError: an order_z other than 0, which no planner of nnU-Net writes.
    """
    if labels.shape == tuple(shape):
        return labels
    if arguments.get("order_z", 0) != 0:
        raise ValueError(f"order_z {arguments['order_z']!r}: labels are resampled along z by order 0 only")
    threshold = arguments.get("separate_z_anisotropy_threshold", resample.THRESHOLD)
    axis = resample.separate_axis(spacing, new_spacing, arguments.get("force_separate_z", False), threshold)
    flat = tuple(n if i != axis else labels.shape[i] for i, n in enumerate(shape))
    resized = _interpolated(labels, flat, arguments.get("order", 3))
    if axis is None or flat == tuple(shape):
        return resized
    nearest = np.floor(
        (np.arange(shape[axis]) + 0.5) * (labels.shape[axis] / shape[axis])
    )  # of voxel centres
    return resized.take(nearest.astype(int).clip(0, labels.shape[axis] - 1), axis=axis)


def _interpolated(labels: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    zoom = [new / old for new, old in zip(shape, labels.shape)]
    if order == 0:
        return _zoomed(labels.astype(np.float64), zoom, 0).astype(labels.dtype)
    nearest = _zoomed(labels.astype(np.float64), zoom, 0).astype(labels.dtype)
    best, of_nearest = np.full(shape, -np.inf), np.zeros(shape)
    winner = np.zeros(shape, labels.dtype)
    for label in np.unique(labels):
        score = _zoomed((labels == label).astype(np.float64), zoom, order).clip(0, 1)
        winner[score > best] = label
        np.maximum(best, score, out=best)
        np.copyto(of_nearest, score, where=nearest == label)
    return np.where(of_nearest == best, nearest, winner)  # at a tie the nearest voxel's, else the smallest


def _zoomed(values: np.ndarray, zoom: Sequence[float], order: int) -> np.ndarray:
    """As skimage's `resize(mode="edge", anti_aliasing=False)`: half-pixel centres, border voxels repeated."""
    return np.asarray(ndimage.zoom(values, zoom, order=order, mode="nearest", grid_mode=True))
