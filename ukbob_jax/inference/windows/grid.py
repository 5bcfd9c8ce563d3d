"""Where the windows of a scan lie, and how much each voxel of a window counts.

The rules are those of MONAI's `sliding_window_inference`, so that results compare voxel by voxel. Everything here
is host arithmetic on static shapes: it runs while a program is traced, never on the device.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.errors import ConfigError

FLOOR = 1e-3  # smallest blending weight: the corners of a window still count
SIGMA_SCALE = 0.125  # width of the gaussian as a fraction of the window; MONAI's and nnU-Net's


class Grid(NamedTuple):
    """The windows of one volume shape; `axis` is the slowest axis of `starts`, so windows come slab by slab."""

    shape: tuple[int, int, int]  # of the volume, voxels, x y z
    roi: tuple[int, int, int]  # voxels, x y z; no axis longer than the padded volume
    before: tuple[int, int, int]  # voxels of padding in front of each axis
    padded: tuple[int, int, int]  # shape with padding
    bucket: tuple[int, int, int]  # the largest shape with as many windows along each axis
    starts: np.ndarray  # n 3, int32, corners of the windows in the padded volume
    axis: int  # the axis with most windows; of equals, the first


def windows(shape: Sequence[int], roi: Sequence[int], overlap: float | Sequence[float]) -> Grid:
    """Cover a volume of `shape` with windows of `roi` voxels.

    An axis shorter than the window is padded to it, floor of half the difference in front. Windows step by
    `int(roi * (1 - overlap))`, at least 1; the last one is moved back to end with the volume.

    Args:
        shape: x y z, voxels.
        roi: x y z, voxels; 0 or less takes the whole axis.
        overlap: fraction of a window that its neighbour covers, in [0, 1); one number, or one per axis.

    Raises:
        ConfigError: a wrong number of entries, or an overlap outside [0, 1).
    """
    overlaps = tuple(map(float, np.ravel(overlap))) * (3 if np.ndim(overlap) == 0 else 1)
    if len(shape) != 3 or len(roi) != 3 or len(overlaps) != 3:
        raise ConfigError(
            f"sliding window: shape {tuple(shape)}, roi {tuple(roi)} and overlap {overlap} need 3 entries."
        )
    if not all(0 <= fraction < 1 for fraction in overlaps):
        raise ConfigError(f"sliding window: overlap {overlap} is outside [0, 1). 0.5 is usual.")
    size = _xyz(int(r) if r > 0 else int(s) for r, s in zip(roi, shape))
    padded = _xyz(max(r, int(s)) for r, s in zip(size, shape))
    before = _xyz((p - int(s)) // 2 for p, s in zip(padded, shape))
    corners = [axis_starts(p, r, fraction) for p, r, fraction in zip(padded, size, overlaps)]
    bucket = _xyz(
        r + (len(c) - 1) * axis_step(p, r, fraction)
        for p, r, fraction, c in zip(padded, size, overlaps, corners)
    )
    axis = int(np.argmax([len(c) for c in corners]))
    order = (axis, *(a for a in range(3) if a != axis))
    mesh = np.meshgrid(*(corners[a] for a in order), indexing="ij")
    starts = np.empty((mesh[0].size, 3), np.int32)
    for a, grid in zip(order, mesh):
        starts[:, a] = grid.ravel()
    return Grid(_xyz(map(int, shape)), size, before, padded, bucket, starts, axis)


def _xyz(values: Iterable[int]) -> tuple[int, int, int]:
    x, y, z = values
    return x, y, z


def axis_starts(length: int, roi: int, overlap: float) -> np.ndarray:
    """First voxels of the windows along one axis of `length` >= `roi` voxels; int32, ascending."""
    step = axis_step(length, roi, overlap)
    count = -(-(length - roi) // step) + 1
    return np.minimum(np.arange(count) * step, length - roi).astype(np.int32)


def axis_step(length: int, roi: int, overlap: float) -> int:
    """Voxels from one window to the next along one axis."""
    return roi if roi == length else max(int(roi * (1 - overlap)), 1)


def batches(starts: np.ndarray, batch: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Group windows into full batches; the last is filled with copies of its last window that do not count.

    Where there are fewer windows than `batch`, they are one batch: filled too if `exact`, else of their number.

    Returns:
        starts `m batch 3` int32, and counts `m batch` float32: 1, or 0 for a filling copy.

    Raises:
        ConfigError: `batch` is below 1.
    """
    if batch < 1:
        raise ConfigError(f"sliding window: batch {batch} must be at least 1.")
    n = len(starts)
    batch = batch if exact else min(batch, n)
    padded = -(-n // batch) * batch
    index = np.minimum(np.arange(padded), n - 1)
    counts = (np.arange(padded) < n).astype(np.float32)
    return starts[index].reshape(-1, batch, 3), counts.reshape(-1, batch)


def sample_windows(starts: np.ndarray, windows: int, steps: int, seed: int) -> np.ndarray:
    """Sample windows for each step without replacement, one random order after another: all are seen equally often.

    Args:
        starts: `n 3`.
        windows: for a step, at least 1; all where there are fewer.
        steps: how many steps, at least 1.
        seed: of the orders.

    Returns:
        `steps windows 3`.
    """
    windows, rng = min(windows, len(starts)), np.random.default_rng(seed)
    orders = [rng.permutation(len(starts)) for _ in range(-(-steps * windows // len(starts)))]
    chosen = np.concatenate(orders)[: steps * windows]
    return starts[chosen].reshape(steps, windows, 3)


def blend_weights(roi: Sequence[int], blend: str) -> np.ndarray:
    """How much each voxel of a window counts where windows overlap: `x y z`, float32, in [0.001, 1].

    "gaussian": the product over axes of exp(-(t - (roi - 1) / 2)**2 / (2 (SIGMA_SCALE roi)**2)), raised to
    at least 0.001; "constant": 1.

    Raises:
        ConfigError: another name.
    """
    if blend == "constant":
        return np.ones(tuple(roi), np.float32)
    if blend != "gaussian":
        raise ConfigError(f"sliding window: blend {blend!r} is not known. Use 'gaussian' or 'constant'.")
    x, y, z = (
        np.exp(-((np.arange(r) - (r - 1) / 2) ** 2) / (2 * (SIGMA_SCALE * r) ** 2)).astype(np.float32)
        for r in roi
    )
    return np.maximum(x[:, None, None] * y[None, :, None] * z[None, None, :], np.float32(FLOOR))


def coverage_weights(grid: Grid) -> list[np.ndarray]:
    """Weight of a voxel in each window that covers it, so that it counts once in all: three factors, one per axis.

    Each has the length of the bucket: 1 / (windows that cover the plane), and 0 for planes outside the volume.
    """
    factors = []
    for axis in range(3):
        count = np.zeros(grid.bucket[axis], np.float32)
        for start in np.unique(grid.starts[:, axis]):
            count[start : start + grid.roi[axis]] += 1
        factor = np.zeros_like(count)
        inside = slice(grid.before[axis], grid.before[axis] + grid.shape[axis])
        factor[inside] = 1 / count[inside]
        factors.append(factor)
    return factors
