"""Image and labels on another spacing, as pyradiomics resamples before it measures; needs SimpleITK."""

from collections.abc import Sequence

import numpy as np

from ukbob_jax.errors import ConfigError, ValuesError


def resample(
    image: np.ndarray,
    labels: np.ndarray,
    spacing_mm: Sequence[float],
    new_mm: float | Sequence[float],
    *,
    affine: np.ndarray | None = None,
    around: int | None = None,
    pad: int = 10,
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Resample an image by cubic B-splines and its labels by nearest neighbour.

    The outer corners of the first voxels coincide, and n voxels of s mm become ceil(n s / new). All organs share this
    grid. Where a new voxel lies midway between two old ones, as from 3 mm to 2 mm many do, the label is decided by
    rounding. pyradiomics resamples one organ at a time, on a part of the same grid, and there rounding falls otherwise: up
    to some percent of an organ's voxels. With `affine` and `around` the result is its own, for this one label.

    Args:
        image, labels: `x y z`.
        new_mm: one spacing, or one for each of x y z; 0 keeps an axis.
        affine: (4, 4), from voxels to mm, as in the image's file.
        around: keep only the part of the grid around this label.
        pad: new voxels that are kept around it.
    Returns:
        Image (float64), labels (their dtype), and the new spacing.
    Raises:
        ConfigError: SimpleITK is not installed.
        ValuesError: `new_mm` is not one or three numbers, at least 0, or label `around` is not there.
    """
    try:
        import SimpleITK as sitk
    except ImportError:
        raise ConfigError(
            "resampling takes SimpleITK's B-splines, which are not installed. pip install 'ukbob-jax[formats]', "
            "or leave resample_mm out."
        ) from None
    old = np.asarray(spacing_mm, np.float64)
    new = (
        np.broadcast_to(np.asarray(new_mm, np.float64), (3,)) if np.size(new_mm) in (1, 3) else np.full(3, -1)
    )
    if not (np.isfinite(new) & (new >= 0)).all():
        raise ValuesError(f"resample_mm={new_mm}: give one spacing in mm, or three.")
    new = np.where(new == 0, old, new)
    spacing = (float(new[0]), float(new[1]), float(new[2]))
    first, last = _part(labels, old / new, around, pad)
    direction, origin = np.eye(3), np.zeros(3)
    if affine is not None:  # ITK's world runs towards left and posterior
        flip = np.array([-1.0, -1.0, 1.0])
        direction, origin = flip[:, None] * affine[:3, :3] / old, flip * affine[:3, 3]
    grid = sitk.ResampleImageFilter()
    grid.SetOutputSpacing(new.tolist())
    grid.SetOutputDirection(direction.ravel().tolist())
    grid.SetSize((last - first + 1).astype(int).tolist())
    found = []
    for array, order in ((image.astype(np.float64), sitk.sitkBSpline), (labels, sitk.sitkNearestNeighbor)):
        volume = sitk.GetImageFromArray(array.T)  # z y x
        volume.SetSpacing(old.tolist())
        volume.SetDirection(direction.ravel().tolist())
        volume.SetOrigin(origin.tolist())
        start = 0.5 * (new - old) / old + first / (old / new)
        grid.SetOutputOrigin(volume.TransformContinuousIndexToPhysicalPoint(start.tolist()))
        grid.SetInterpolator(order)
        found.append(sitk.GetArrayFromImage(grid.Execute(volume)).T)
    return found[0], found[1], spacing


def _part(
    labels: np.ndarray, ratio: np.ndarray, around: int | None, pad: int
) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel of the new grid to compute, along x y z; `ratio` new voxels are as long as an old one."""
    end = np.ceil(np.array(labels.shape) * ratio) - 1
    if around is None:
        return np.zeros(3), end
    place = np.nonzero(labels == around)
    if not place[0].size:
        raise ValuesError(f"around={around}: the labels have no such voxel.")
    low, high = (np.array([bound(p) for p in place]) for bound in (np.min, np.max))
    first = np.maximum(np.floor((low - 0.5) * ratio - pad), 0)
    return first, np.minimum(np.ceil((high + 0.5) * ratio + pad), end)
