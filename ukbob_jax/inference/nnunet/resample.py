"""nnU-Net's resampling: skimage's `resize(mode="edge", anti_aliasing=False)`, axis by axis.

Interpolation with B-splines on a grid is a product of one matrix per axis. The matrices are read off scipy itself, by
interpolating unit vectors, so that the numbers are scipy's. Positions: half-pixel centres, border voxels repeated.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ukbob_jax.errors import FileError
from ukbob_jax.inference.nnunet.plans import Resampling

Array = np.ndarray
DEFAULT, TORCH, NONE = "resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"
THRESHOLD = 3  # nnU-Net's ANISO_THRESHOLD
_CHUNK = 2**22  # numbers in float64 at once


class Axes(NamedTuple):
    """How an array c z y x comes to another shape.

    Attributes:
        shape: voxels after it.
        orders: of the spline along each axis; None: the voxels that `nearest` says.
        nearest: index of the voxel taken at each position, for axes without order.
        apart: the axis whose slices are resized one by one before it is interpolated itself; None: none.
        clip: to each channel's range, or where an axis is apart to that of each slice.
    """

    shape: tuple[int, ...]
    orders: tuple[int | None, ...]
    nearest: tuple[Array | None, ...]
    apart: int | None = None
    clip: bool = False


class Taps(NamedTuple):
    """Linear interpolation along one axis: a + (b - a) * weight of the voxels `low` and `high`."""

    low: Array  # n, int32
    high: Array  # n, int32
    weight: Array  # n, float32


def new_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Voxels at the spacing `target`, rounded half to even, in nnU-Net's order of operations."""
    return tuple(round(float(old) / float(new) * int(n)) for old, new, n in zip(spacing, target, shape))


def separate_axis(
    current: Sequence[float], target: Sequence[float], force: bool | None, threshold: float
) -> int | None:
    """The axis along which slices are kept apart, or None; the current spacing decides before the target's."""
    if force is False:
        return None
    for spacing in (current,) if force else (current, target):
        if force or max(spacing) / min(spacing) > threshold:
            found = [axis for axis, s in enumerate(spacing) if max(spacing) / s == 1]
            return found[0] if len(found) == 1 else None
    return None


def axes(
    how: Resampling,
    shape: Sequence[int],
    target_shape: Sequence[int],
    current: Sequence[float],
    target: Sequence[float],
    where: str,
) -> Axes:
    """What a function of the plans does to an array.

    Args:
        how: the function and its arguments.
        shape: voxels z y x.
        target_shape: voxels that are wanted.
        current: spacing of the array, mm.
        target: spacing of the result, mm.
        where: for messages.
    Raises:
        FileError: an argument that is not known, or no resampling where the shapes differ.
    """
    old, new = tuple(map(int, shape)), tuple(map(int, target_shape))
    if how.function == NONE or old == new:
        if how.function == NONE and how.arguments:
            raise FileError(f"{where}: {NONE} takes no arguments, and has {', '.join(how.arguments)}.")
        return Axes(old, (1, 1, 1), (None,) * 3)
    if how.function == TORCH:
        return _torch(how, old, new, current, target, where)
    known = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False}
    chosen = _chosen(how, {**known, "separate_z_anisotropy_threshold": THRESHOLD}, where)
    axis = separate_axis(
        current, target, chosen["force_separate_z"], chosen["separate_z_anisotropy_threshold"]
    )
    orders: list[int | None] = [int(chosen["order"])] * 3
    nearest: list[Array | None] = [None] * 3
    if axis is not None and chosen["order_z"] == 0:
        orders[axis], nearest[axis] = None, nearest_index(old[axis], new[axis])
    elif axis is not None:
        orders[axis] = int(chosen["order_z"])
    return Axes(new, tuple(orders), tuple(nearest), axis, clip=True)


def _torch(
    how: Resampling,
    old: tuple[int, ...],
    new: tuple[int, ...],
    current: Sequence[float],
    target: Sequence[float],
    where: str,
) -> Axes:
    """`resample_torch_fornnunet`: linear, and with a separate axis another rule along that."""
    ignored = {"num_threads": 4, "device": "cpu", "memefficient_seg_resampling": False, "is_seg": False}
    rules = {"force_separate_z": None, "mode": "linear", "aniso_axis_mode": "nearest-exact"}
    chosen = _chosen(how, {**ignored, **rules, "separate_z_anisotropy_threshold": THRESHOLD}, where)
    axis = separate_axis(
        current, target, chosen["force_separate_z"], chosen["separate_z_anisotropy_threshold"]
    )
    orders: list[int | None] = [1] * 3
    nearest: list[Array | None] = [None] * 3
    if axis is not None:  # without a separate axis nnU-Net does not hand `mode` on
        if chosen["mode"] != "linear" or chosen["aniso_axis_mode"] not in ("nearest", "nearest-exact"):
            raise FileError(
                f"{where}: {TORCH} with mode {chosen['mode']!r} and aniso_axis_mode {chosen['aniso_axis_mode']!r} is not "
                "supported; linear with nearest or nearest-exact is."
            )
        half = np.float32(0.5 if chosen["aniso_axis_mode"] == "nearest-exact" else 0)
        scale = np.float32(old[axis]) / np.float32(new[axis])
        index = ((np.arange(new[axis], dtype=np.float32) + half) * scale).astype(np.int32)
        orders[axis], nearest[axis] = None, np.minimum(index, old[axis] - 1)
    return Axes(new, tuple(orders), tuple(nearest), axis)


def _chosen(how: Resampling, known: dict, where: str) -> dict:
    if unknown := [name for name in how.arguments if name not in known]:
        raise FileError(f"{where}: {how.function} has an argument {unknown[0]!r} that is not known.")
    return {**known, **how.arguments}


def nearest_index(old: int, new: int) -> Array:
    """Which of `old` voxels is nearest to each of `new`, as scipy's `map_coordinates` with order 0 takes it."""
    position = float(old) / new * (np.arange(new) + 0.5) - 0.5
    return np.clip(np.floor(position + 0.5).astype(np.int32), 0, old - 1)


@functools.lru_cache(maxsize=64)
def matrix(old: int, new: int, order: int) -> Array:
    """What one axis of `old` voxels is multiplied by: `new old`, float64."""
    if old == new and order <= 1:
        return np.eye(old)
    columns = np.empty((new, old))
    for at, unit in enumerate(np.eye(old)):
        columns[:, at] = ndimage.zoom(unit, new / old, order=order, mode="nearest", grid_mode=True)
    return columns


def image(array: Array, how: Axes) -> Array:
    """An image c z y x at another shape, float32; channel by channel, a few columns in float64 at a time."""
    if array.shape[1:] == how.shape:
        return array
    out = np.empty((array.shape[0], *how.shape), np.float32)
    for channel, whole in zip(array, out):
        _volume(channel, how, whole)
    return out


def _volume(array: Array, how: Axes, out: Array) -> None:
    """One channel into `out`: float64 throughout, since a rounding between two axes would be seen in values of thousands."""
    if how.apart is not None:
        kept = np.float32 if how.orders[how.apart] is None else np.float64
        planes = [_plane(plane, how, how.apart).astype(kept) for plane in np.moveaxis(array, how.apart, 0)]
        out[...] = _along(np.stack(planes, how.apart), how, how.apart, how.apart)
        return
    width = max(1, _CHUNK // (max(array.shape[0], out.shape[0]) * out.shape[1]))
    for start in range(0, out.shape[2], width):
        part = slice(start, start + width)
        middle = np.empty((array.shape[0], out.shape[1], out[..., part].shape[2]))
        for plane, into in zip(array, middle):
            into[...] = _along(_along(plane.astype(np.float64), how, 2, 1, part), how, 1, 0)
        out[..., part] = _along(middle, how, 0, 0)
    if how.clip:
        np.clip(out, array.min(), array.max(), out=out)


def _plane(plane: Array, how: Axes, apart: int) -> Array:
    """One slice across the axis `apart`, float64."""
    first, second = (a for a in range(3) if a != apart)
    found = _along(_along(plane.astype(np.float64), how, second, 1), how, first, 0)
    return np.clip(found, plane.min(), plane.max()) if how.clip else found


def _along(array: Array, how: Axes, axis: int, at: int, part: slice = slice(None)) -> Array:
    """Interpolate along the volume's `axis`, which is the axis `at` of `array`; `part` of its new positions."""
    order, index = how.orders[axis], how.nearest[axis]
    if order is None:
        assert index is not None
        return array.take(index[part], at)
    old = array.shape[at]
    if old == how.shape[axis] and order <= 1:
        return array[(slice(None),) * at + (part,)]
    return np.moveaxis(np.tensordot(matrix(old, how.shape[axis], order)[part], array, (1, at)), 0, at)


def taps(how: Axes, shape: Sequence[int], where: str) -> list[Taps]:
    """The two voxels, and the second one's weight, of each position along each axis; for logits.

    Raises:
        FileError: splines of order 2 and above, which need all planes at once.
    """
    return list(_taps(how, shape, where))


def _taps(how: Axes, shape: Sequence[int], where: str) -> Iterator[Taps]:
    for old, new, order, index in zip(shape, how.shape, how.orders, how.nearest):
        if order is None:
            assert index is not None
            yield Taps(index, index, np.zeros(new, np.float32))
        elif old == new:
            same = np.arange(new, dtype=np.int32)
            yield Taps(same, same, np.zeros(new, np.float32))
        elif order == 0:
            index = matrix(old, new, 0).argmax(axis=1).astype(np.int32)
            yield Taps(index, index, np.zeros(new, np.float32))
        elif order == 1:
            position = np.clip(old / new * (np.arange(new) + 0.5) - 0.5, 0, old - 1)
            low = np.minimum(np.floor(position), old - 1).astype(np.int32)
            yield Taps(low, np.minimum(low + 1, old - 1), (position - low).astype(np.float32))
        else:
            raise FileError(f"{where}: logits resampled with order {order} are not supported; 0 and 1 are.")
