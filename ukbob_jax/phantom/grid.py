"""Where the voxels of a phantom lie: one field of view for every subject, any number of voxels."""

import numpy as np

from ukbob_jax.errors import ConfigError

FIELD_OF_VIEW_MM = (500.0, 300.0, 1100.0)  # x y z: across the body, front to back, knee to neck

LOW_CORNER_MM = (-250.0, -150.0, 0.0)

Shape3 = tuple[int, int, int]


def spacing_mm(shape: Shape3) -> tuple[float, float, float]:
    """Edge lengths of a voxel, mm, when `shape` voxels fill the field of view.

    Raises:
        ConfigError: `shape` is not three positive counts.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"phantom shape {tuple(shape)} is not three voxel counts from 1; give x, y, z.")
    x, y, z = (length / n for length, n in zip(FIELD_OF_VIEW_MM, shape))
    return x, y, z


def axes_mm(shape: Shape3) -> list[np.ndarray]:
    """World coordinates of the voxel centres along x, y and z, float32: x = 0 is the midline, z = 0 the lower edge."""
    return [
        (start + step * (np.arange(n) + 0.5)).astype(np.float32)
        for start, step, n in zip(LOW_CORNER_MM, spacing_mm(shape), shape)
    ]


def affine(shape: Shape3) -> np.ndarray:
    """Voxel index to world, (4, 4) float64, RAS+ mm: x grows to the subject's right."""
    matrix = np.diag([*spacing_mm(shape), 1.0])
    matrix[:3, 3] = [axis[0] for axis in axes_mm(shape)]
    return matrix
