"""Straight and oblique grids, and images on them whose values are known everywhere."""

import itertools

import numpy as np
from hypothesis import settings

import ukbob_jax as bob

ORIENTATIONS = [
    "".join(axes)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for axes in itertools.product(*order)
]


few = settings(max_examples=25, deadline=None)


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q


def oblique(seed: int, spacing=(1.5, 2.0, 3.1)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation(seed) * spacing
    affine[:3, 3] = np.random.default_rng(seed).uniform(-100, 100, 3)
    return affine


def straight(spacing=(1.5, 2.0, 3.1), origin=(-10.0, 5.0, 20.0)) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def world(affine: np.ndarray, shape) -> np.ndarray:
    """Position of each voxel centre, x y z 3, mm."""
    index = np.moveaxis(np.indices(shape), 0, -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def ramp(affine: np.ndarray, shape, gradient) -> bob.Volume:
    """An image that is linear in the world, so linear interpolation inside it is exact."""
    return bob.Volume((world(affine, shape) @ gradient).astype(np.float32), affine)


def noise(shape, seed=0, dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)
