"""Label maps on the grid of the preprocessed image, as nnU-Net 2.8.1 brings them there: of training cases, and of a
cascade's previous stage.

Each label's mask is interpolated by itself, and a voxel gets the label with the largest value (`resize_segmentation` of
batchgenerators 0.25.5; until 0.25.1 it cut each mask at one half, the larger ids last, which differs at ties and where
three labels meet). Arrays are z y x of the file after `transpose_forward`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ukbob_jax.inference.nnunet import resample
from ukbob_jax.inference.nnunet.plans import Resampling

OUTSIDE = -1  # background outside the mask of what is not 0, a label of its own while labels are resampled


def on_array_grid(
    labels: np.ndarray,
    nonzero: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    how: Resampling,
    where: str,
) -> np.ndarray:
    """A label map of the cropped image on the grid of the preprocessed one.

    Args:
        labels: z y x, integers.
        nonzero: z y x, where any channel of the image is not 0; holes count as inside.
        shape: of the preprocessed image.
        spacing: of `labels`, mm.
        new_spacing: of the result, mm.
        how: of the plans, for labels.
        where: for messages.
    Returns:
        z y x, int32, with `OUTSIDE` for background outside the mask.
    Raises:
        FileError: arguments of `how` that are not known.
    """
    inside = np.asarray(ndimage.binary_fill_holes(nonzero), bool)
    ids = np.where((labels == 0) & ~inside, OUTSIDE, labels.astype(np.int32))
    if how.function == resample.TORCH:
        return _linear(ids, resample.axes(how, ids.shape, shape, spacing, new_spacing, where), how)
    if how.function == resample.DEFAULT:
        return resize(ids, shape, spacing, new_spacing, how.arguments)
    return ids


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
    """
    if labels.shape == tuple(shape):
        return labels
    threshold = arguments.get("separate_z_anisotropy_threshold", resample.THRESHOLD)
    axis = resample.separate_axis(spacing, new_spacing, arguments.get("force_separate_z", False), threshold)
    flat = tuple(n if i != axis else labels.shape[i] for i, n in enumerate(shape))
    resized = _interpolated(labels, flat, arguments.get("order", 3))
    if axis is None or flat == tuple(shape):
        return resized
    if not (order := arguments.get("order_z", 0)):
        return resized.take(resample.nearest_index(labels.shape[axis], shape[axis]), axis=axis)
    out = np.zeros(shape, labels.dtype)
    zoom = [new / old for new, old in zip(shape, resized.shape)]
    for label in np.unique(resized):  # cut at one half here, the larger ids last
        out[_zoomed((resized == label).astype(np.float64), zoom, order) > 0.5] = label
    return out


def _linear(labels: np.ndarray, how: resample.Axes, function: Resampling) -> np.ndarray:
    """`resample_torch_fornnunet` with `is_seg`: shares of a voxel in thousandths and float16, where ties come from."""
    if labels.shape == how.shape:
        return labels
    halves = bool(function.arguments.get("memefficient_seg_resampling", False))
    best, out = np.zeros(how.shape, np.float16), np.zeros(how.shape, labels.dtype)
    for label in np.unique(labels):
        share = resample.image((labels == label)[None].astype(np.float32), how)[0]
        if halves:
            out[share > 0.5] = label
            continue
        share = (1000 * share).astype(np.float16)
        out[share > best] = label
        np.maximum(best, share, out=best)
    return out


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
