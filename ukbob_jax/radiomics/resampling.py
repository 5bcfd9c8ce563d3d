"""Image and labels on another spacing, as pyradiomics resamples before it measures; needs SimpleITK."""

from collections.abc import Sequence

import numpy as np

from ukbob_jax.errors import ConfigError, ValuesError


def resample(
    image: np.ndarray, labels: np.ndarray, spacing_mm: Sequence[float], new_mm: float | Sequence[float]
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Resample an image by cubic B-splines and its labels by nearest neighbour.

    The outer corners of the first voxels coincide, and n voxels of s mm become ceil(n s / new). pyradiomics does so too,
    organ by organ on a cropped image, so intensities near the edge of its crop differ in the fifth digit.

    Args:
        image, labels: `x y z`.
        new_mm: one spacing, or one for each of x y z; 0 keeps an axis.
    Returns:
        Image (float64), labels (their dtype), and the new spacing.
    Raises:
        ConfigError: SimpleITK is not installed.
        ValuesError: `new_mm` is not one or three numbers, at least 0.
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
    if np.allclose(new, old):
        return image.astype(np.float64), labels, spacing
    grid = sitk.ResampleImageFilter()
    grid.SetOutputSpacing(new.tolist())
    grid.SetOutputOrigin((0.5 * (new - old)).tolist())
    grid.SetSize(np.ceil(np.array(image.shape) * old / new).astype(int).tolist())
    found = []
    for array, order in ((image.astype(np.float64), sitk.sitkBSpline), (labels, sitk.sitkNearestNeighbor)):
        volume = sitk.GetImageFromArray(array.T)  # z y x
        volume.SetSpacing(old.tolist())
        grid.SetInterpolator(order)
        found.append(sitk.GetArrayFromImage(grid.Execute(volume)).T)
    return found[0], found[1], spacing
