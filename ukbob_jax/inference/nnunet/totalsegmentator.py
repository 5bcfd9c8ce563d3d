"""What TotalSegmentator does around nnU-Net, step by step, as functions on volumes.

Source: TotalSegmentator at 0e65a448, `nnunet.py` and `resampling.py`, with its defaults: no crop, no removal of small
pieces, the image resampled with order 1. In this order: `Volume.to_ras`, `resample`, nnU-Net once per model, `merge`,
`back`. Images of more than 512 * 512 * 900 voxels at the model's spacing, which it cuts in three, are not cut here.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes.volume import Volume


def before(image: Volume, spacing_mm: float) -> Volume:
    """The image `x y z` that nnU-Net gets, of one as it is stored."""
    return resample(image.to_ras(), spacing_mm)


def after(labels: Volume, image: Volume) -> Volume:
    """The label map of an image `x y z` as it is stored, from labels of `before(image, ...)`."""
    return back(labels.array, image)


def resample(image: Volume, spacing_mm: float) -> Volume:
    """The image `x y z` at the same spacing along all axes, int32; unchanged where it has that spacing already.

    The centres of the first and the last voxel stay where they are (scipy's `zoom`), values are linear between voxels
    and cut off towards 0. The affine says `spacing_mm`, as theirs does, though the voxels lie a little closer.
    n_out = round(n_in * s_in / s_out), half to even.
    """
    from scipy import ndimage

    factors = _factors(image, spacing_mm)
    if (factors == 1).all():
        return image
    zoomed = ndimage.zoom(image.array, factors, output=np.float64, order=1, mode="nearest")
    array = np.asarray(zoomed)
    affine = image.affine.copy()
    affine[:3, :3] /= factors
    return dataclasses.replace(image, array=array.astype(np.int32), affine=affine)


def merge(maps: Sequence[np.ndarray], tables: Sequence[Mapping[int, int]]) -> np.ndarray:
    """One label map of several models' maps: later ones overwrite, where they have any label.

    Args:
        maps: `x y z` integers, one per model.
        tables: of each model, its id to the id in the merged map; ids without one become background.

    Returns:
        uint8, `x y z`.
    """
    merged = np.zeros(maps[0].shape, np.uint8)
    for labels, table in zip(maps, tables, strict=True):
        overwrite(merged, labels, table)
    return merged


def overwrite(merged: np.ndarray, labels: np.ndarray, table: Mapping[int, int]) -> None:
    """Put one model's labels over those of the models before, in place, where it has any; as `merge`."""
    lookup = np.zeros(256, np.uint8)
    lookup[list(table)] = list(table.values())
    own = lookup[labels]
    np.copyto(merged, own, where=own != 0)


def back(labels: np.ndarray, image: Volume) -> Volume:
    """The label map of `resample(image.to_ras(), ...)` on the grid of `image`, by the nearest voxel.

    Args:
        labels: `x y z`, axes to right, anterior, superior.
        image: as stored, in any orientation.
    """
    from scipy import ndimage

    canonical = image.to_ras()
    if labels.shape != canonical.shape:
        factors = np.asarray(canonical.shape) / np.asarray(labels.shape)
        labels = np.asarray(ndimage.zoom(labels, factors, order=0, mode="nearest"))
    turned = dataclasses.replace(canonical, array=labels).reorient(image.orientation)
    return dataclasses.replace(image, array=turned.array)


def _factors(image: Volume, spacing_mm: float) -> np.ndarray:
    """Old spacing, in the float32 of a header, over the new one."""
    return affines.spacing(image.affine).astype(np.float32).astype(np.float64) / spacing_mm
