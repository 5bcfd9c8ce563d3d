"""Arrays as images of ITK, whose world is left, posterior, superior."""

from typing import Any

import numpy as np

from ukbob_jax.diffusion.library import load

LPS = np.diag([-1.0, -1.0, 1.0])  # RAS+ to ITK's world, and back


def to_itk(array: np.ndarray, affine: np.ndarray) -> Any:
    """An image of SimpleITK from `x y z` and its matrix, voxel to RAS+ mm."""
    sitk = load("SimpleITK")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((LPS @ affine[:3, 3]).tolist())
    image.SetDirection((LPS @ (affine[:3, :3] / spacing)).ravel().tolist())
    return image
