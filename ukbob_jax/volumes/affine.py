"""Voxel-to-world matrices: spacing, checks, and how far apart two grids lie."""

import itertools

import numpy as np

from ukbob_jax.errors import GeometryError

MAX_SHEAR = 1e-3  # |cosine| between two voxel axes; rounding in float32 headers stays below 1e-5
MIN_SPACING_MM = 1e-6


def spacing(affine: np.ndarray) -> np.ndarray:
    """Distance between neighbouring voxels along each axis, mm: the column norms of the (4, 4) matrix."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def shear(affine: np.ndarray) -> float:
    """Largest |cosine| between two voxel axes; 0 where all are at right angles."""
    directions = affine[:3, :3] / spacing(affine)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def check(affine: np.ndarray, name: str) -> None:
    """Refuse a matrix that is no voxel-to-world map; `name` says whose it is.

    Raises:
        GeometryError: not (4, 4), not finite, a zero spacing, or singular.
    """
    if affine.shape != (4, 4):
        raise GeometryError(f"{name}: the affine has shape {affine.shape}; expected (4, 4).")
    if not np.isfinite(affine).all():
        raise GeometryError(
            f"{name}: the affine holds NaN or infinity: {affine[:3].tolist()}. Repair the header."
        )
    norms = spacing(affine)
    if norms.min() < MIN_SPACING_MM:
        raise GeometryError(
            f"{name}: the affine is singular, voxel spacing {norms.tolist()} mm; every axis needs a length."
        )
    determinant = np.linalg.det(affine[:3, :3] / norms)
    if abs(determinant) < 1e-6:
        raise GeometryError(
            f"{name}: the affine is singular (determinant {determinant:.2g} of its directions): {affine[:3].tolist()}."
        )


def check_shear(affine: np.ndarray, name: str) -> None:
    """Refuse axes that are not at right angles.

    Raises:
        GeometryError: the largest cosine between two axes is above `MAX_SHEAR`.
    """
    if (value := shear(affine)) > MAX_SHEAR:
        raise GeometryError(
            f"{name}: the affine is sheared: cosine {value:.6g} between two voxel axes, at most {MAX_SHEAR:g} is "
            "accepted. Resample the file to a grid with right angles first."
        )


def corner_distance_mm(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance in the world between the same corner voxel of a grid under two affines, mm."""
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*((0, n - 1) for n in shape[:3]))])
    return float(np.linalg.norm((corners @ (a - b).T)[:, :3], axis=1).max())
