"""Where nnU-Net's tiles lie, and how much each voxel of a tile counts. Axes are those of the preprocessed array, z y x.

A network of slices has tiles one slice thick, one for every slice.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ukbob_jax.errors import ConfigError

STEP = 0.5  # of a tile, from one to the next; nnU-Net's default
_SIGMA = 1 / 8  # of the gaussian, in tiles
_TOP = 10  # its largest value


class Tiles(NamedTuple):
    """The tiles of one array, in nnU-Net's order: the first axis is the slowest."""

    shape: tuple[int, int, int]  # of the array, voxels
    patch: tuple[int, int, int]  # of a tile, voxels
    before: tuple[int, int, int]  # zeros in front of each axis
    padded: tuple[int, int, int]  # shape with zeros around
    bucket: tuple[int, int, int]  # the largest padded shape with as many tiles along each axis
    starts: np.ndarray  # n 3, int32, corners in the padded array
    flat: bool  # of a network of slices


def lay(shape: Sequence[int], patch: Sequence[int], step: float = STEP) -> Tiles:
    """Cover an array of `shape` with tiles.

    Args:
        shape: voxels z y x.
        patch: of the plans, two or three numbers.
        step: from one tile to the next at most, as a fraction of the tile, above 0 up to 1.
    Raises:
        ConfigError: another step.
    """
    if not 0 < step <= 1:
        raise ConfigError(f"step_size {step} must be above 0 and at most 1; 0.5 is usual.")
    flat = len(patch) == 2
    size = (1, *map(int, patch)) if flat else tuple(map(int, patch))
    padded = tuple(max(int(n), p) for n, p in zip(shape, size))
    before = tuple((m - int(n)) // 2 for n, m in zip(shape, padded))
    corners = [axis_starts(n, p, step) for n, p in zip(padded, size)]
    bucket = [math.floor(p + (len(c) - 1) * p * step + 1e-9) for p, c in zip(size, corners)]
    if flat:
        corners[0], bucket[0] = list(range(padded[0])), padded[0]
    mesh = np.meshgrid(*corners, indexing="ij")
    starts = np.stack([axis.ravel() for axis in mesh], axis=-1).astype(np.int32)
    return Tiles(_three(shape), _three(size), _three(before), _three(padded), _three(bucket), starts, flat)


def axis_starts(length: int, patch: int, step: float) -> list[int]:
    """First voxels of the tiles along one axis, spread evenly, rounded half to even."""
    count = int(np.ceil((length - patch) / (patch * step))) + 1
    if count == 1:
        return [0]
    return [int(np.round((length - patch) / (count - 1) * at)) for at in range(count)]


@functools.lru_cache(maxsize=4)
def gaussian(patch: tuple[int, ...]) -> np.ndarray:
    """Weight of each voxel of a tile, float32, 10 at the middle: scipy's gaussian, cut off at four sigma.

    nnU-Net keeps it in float16, where most of it underflows; what is 0 here is, as there, the smallest that is not.
    """
    weight = np.zeros(patch)
    weight[tuple(p // 2 for p in patch)] = 1
    sigma = [0 if p == 1 else p * _SIGMA for p in patch]
    weight = ndimage.gaussian_filter(weight, sigma, 0, mode="constant", cval=0)
    single = (weight / (weight.max() / _TOP)).astype(np.float32)
    single[single == 0] = single[single > 0].min()
    return single


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = map(int, values)
    return z, y, x
