"""What a grader sees of one mask, worked out on the host by NumPy: for training, where every pair is another crop.

The same numbers as `preprocessing.prepare_slices` and `prepare_cubes`, of the voxels of the crop alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.sentinel import preprocessing, sampling
from ukbob_jax.sentinel.preprocessing import Window
from ukbob_jax.sentinel.sight import SLICES, Sight

Volume = np.ndarray  # x y z


class Views(NamedTuple):
    """Rows of a batch that show one mask: n slices, or one cube."""

    seen: np.ndarray  # n h w 2 or n x y z 2, float32
    place: np.ndarray  # n 4, float32; zeros for slices
    dice: np.ndarray  # n, float32: of each slice, or of the mask
    truth: np.ndarray  # n x y z, float32, 0 to 1: what a cube's mask should be; n 0 for slices


def of_mask(
    sight: Sight,
    image: Volume,
    pair: sampling.Pair,
    truth: Volume,
    spacing_mm: Sequence[float],
    window: Window,
    rng: np.random.Generator | None = None,
) -> Views:
    """What is seen of a pair's mask, which is not empty.

    Args:
        sight: of the grader.
        image: float32.
        pair: the mask and its Dice.
        truth: bool, what the mask should be.
        spacing_mm: of a voxel.
        window: of the scan.
        rng: for training: a grader of slices then sees one slice, drawn, with a margin that is drawn; None: up to ten
            slices, as in grading.
    """
    if sight.kind == "slices":
        return _slices(sight, image, pair.mask, truth, window, rng)
    first, last = _ends(pair.mask)
    cube = preprocessing.cube(first, last, spacing_mm, sight.margin)
    place = preprocessing.place(cube, image.shape)
    part, resized = _resizing(cube, image.shape, sight.size)
    seen = preprocessing.stacked(resized, image[part], pair.mask[part], window, xp=np)
    right = resized(truth[part].astype(np.float32))
    return Views(seen[None], place[None], np.array([pair.dice], np.float32), right[None])


def _ends(mask: Volume) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel along each axis."""
    along = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([a[0] for a in along]), np.array([a[-1] for a in along])


def _resizing(
    cube: preprocessing.Cube, shape: Sequence[int], size: int
) -> tuple[tuple[slice, ...], Callable[[Volume], Volume]]:
    """The voxels whose centres lie in the cube, and what brings them to `size` voxels along each axis."""
    low = np.clip(np.ceil(cube.start).astype(int), 0, shape)
    high = np.clip(np.ceil(cube.stop).astype(int), low, shape)
    matrices = [
        preprocessing.resize_matrix(start[None] - a, stop[None] - a, b - a, size, xp=np)[0].astype(np.float32)
        for start, stop, a, b in zip(cube.start, cube.stop, low, high)
    ]

    def resized(values: Volume) -> Volume:
        # many small products: one large one would be spread over threads, which cost more than they save
        for matrix in matrices[::-1]:  # x y z -> z' x y -> y' z' x -> x' y' z'
            values = np.moveaxis(values @ matrix.T, -1, 0)
        return values

    return tuple(slice(a, b) for a, b in zip(low, high)), resized


def _slices(
    sight: Sight, image: Volume, mask: Volume, truth: Volume, window: Window, rng: np.random.Generator | None
) -> Views:
    inside = np.flatnonzero(mask.any((0, 1)))
    chosen = inside[preprocessing.slices_used(len(inside), SLICES)]
    if rng is not None:
        chosen = rng.choice(inside, 1)
    seen = []
    for z in chosen:
        # rows from anterior to posterior, columns from right to left, as scans are read
        seen.append(_slice(image[::-1, ::-1, z].T, mask[::-1, ::-1, z].T, sight, window, rng))
    dice = sampling.slice_dice(mask[..., chosen], truth[..., chosen])
    none = np.zeros((len(chosen), 0), np.float32)
    return Views(np.stack(seen), np.zeros((len(chosen), 4), np.float32), dice.astype(np.float32), none)


def _slice(
    image: np.ndarray, mask: np.ndarray, sight: Sight, window: Window, rng: np.random.Generator | None
) -> np.ndarray:
    """h w 2 of one slice."""
    margin = int(sight.margin) if rng is None else preprocessing.random_margins(rng, mask, sight.size)
    top, bottom, left, right = preprocessing.crop_box(mask, margin).tolist()
    part = slice(top, bottom), slice(left, right)
    rows, columns = (
        preprocessing.resize_matrix(np.zeros(1), np.full(1, length), length, sight.size, xp=np)[0]
        for length in (bottom - top, right - left)
    )
    return preprocessing.stacked(lambda v: rows @ v @ columns.T, image[part], mask[part], window, xp=np)
