"""Smooth random fields, and the deformation that makes each body a variant of one reference body."""

import numpy as np

from ukbob_jax.phantom.grid import FIELD_OF_VIEW_MM, LOW_CORNER_MM
from ukbob_jax.phantom.person import Person

HIP_Z_MM = 400.0  # below it the legs have a length of their own
_TOP_Z_MM = FIELD_OF_VIEW_MM[2]


def _bspline_basis(positions: np.ndarray, knots: int) -> np.ndarray:
    """Cubic B-spline weights, (n, knots) float32, of positions in 0..1 on evenly spaced knots."""
    t = positions * (knots - 3)
    first = np.clip(np.floor(t).astype(int), 0, knots - 4)
    u = (t - first).astype(np.float32)
    weights = np.stack(
        [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1
    )  # n 4
    basis = np.zeros((len(positions), knots), np.float32)
    np.put_along_axis(basis, first[:, None] + np.arange(4), weights / 6, axis=1)
    return basis


def smooth_field(rng: np.random.Generator, axes_mm: list[np.ndarray], step_mm: float) -> np.ndarray:
    """A random field, `x y z` float32, about zero mean and unit spread, that varies over `step_mm`.

    It is a function of the place in the field of view: the same draw on another grid is the same field.
    """
    knots = [max(4, int(length / step_mm) + 4) for length in FIELD_OF_VIEW_MM]
    field = rng.standard_normal(knots, np.float32)
    for axis, low, length, count in zip(axes_mm, LOW_CORNER_MM, FIELD_OF_VIEW_MM, knots):
        basis = _bspline_basis((axis - low) / length, count)
        field = np.tensordot(field, basis, axes=(0, 1))  # moves the axis just done to the end
    return field / np.float32(0.69**3)  # spread of a cubic B-spline sum of unit numbers, per axis


def reference_coordinates(
    rng: np.random.Generator, person: Person, axes_mm: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Where each voxel of this subject lies in the reference body.

    Args:
        rng: draws the deformation.
        person: whose size and proportions to undo.
        axes_mm: world coordinates of the voxel centres along x, y and z.
    Returns:
        Rigid axes: three vectors, mm, without the deformation; and three fields `x y z`, mm, float32, with it.
    """
    x, y, z = axes_mm
    shift = rng.normal((0.0, 5.0, 0.0), (4.0, 4.0, 8.0))
    up = (z - _TOP_Z_MM + np.float32(shift[2])) / np.float32(person.tallness) + np.float32(_TOP_Z_MM)
    up = np.where(up < HIP_Z_MM, HIP_Z_MM + (up - HIP_Z_MM) / person.legs, up)
    rigid = [
        ((x - shift[0]) / person.frame).astype(np.float32),
        ((y - shift[1]) / person.frame).astype(np.float32),
        up.astype(np.float32),
    ]
    fields = []
    for axis, values in enumerate(rigid):
        wave = 5.0 * smooth_field(rng, axes_mm, 140.0) + 1.6 * smooth_field(rng, axes_mm, 50.0)
        wave += np.expand_dims(values, [other for other in range(3) if other != axis])
        fields.append(wave)
    return rigid, fields
