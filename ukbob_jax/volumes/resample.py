"""Interpolation on host arrays: axis by axis where the grids are parallel, by world coordinates otherwise.

Positions are clamped to the input's voxel centres, so the border value repeats outside the volume.
"""

import numpy as np

NEAREST, LINEAR, CUBIC = 0, 1, 3
SLAB_VOXELS = 2**20  # output voxels whose positions are held at once on the general path


def grid_size(size: tuple[int, ...], spacing_in: np.ndarray, spacing_out: np.ndarray) -> tuple[int, ...]:
    """Voxels per axis after resampling when the first voxel centre stays in place.

    round_half_even((n_in - 1) * s_in / s_out + 1), as MONAI's `Spacing` does.
    """
    exact = (np.asarray(size) - 1) * np.asarray(spacing_in) / np.asarray(spacing_out) + 1
    return tuple(int(n) for n in np.maximum(np.round(exact), 1))


def along_axes(array: np.ndarray, positions: list[np.ndarray], order: int) -> np.ndarray:
    """Sample `array` on the outer product of one position list per axis.

    Args:
        array: x y z, any real dtype.
        positions: three 1-D arrays of (fractional) input voxel indices, clamped to the array.
        order: 0 nearest (dtype kept), 1 linear (float32).
    """
    axes = np.argsort(-np.abs(array.strides), kind="stable")  # slabs of what lies together in memory
    array = array.transpose(axes)
    positions = [np.clip(positions[a], 0, n - 1) for a, n in zip(axes, array.shape)]
    out = _nearest(array, positions) if order == NEAREST else _linear(array, positions)
    return out.transpose(np.argsort(axes))


def cubic(array: np.ndarray, ratio: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sample `array` (x y z) at `ratio * (i, j, k)` for every voxel of a grid of `shape`, by a cubic B-spline; float32.

    The spline goes through every voxel, so that it may overshoot beside an edge.
    """
    from scipy import ndimage  # not at the start of every command: most scans never need it

    source = array.astype(np.float32)
    return ndimage.affine_transform(source, ratio, output_shape=shape, order=CUBIC, mode="nearest")


def _nearest(array: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
    """One axis at a time, which is faster than indexing all three at once; axes that shrink come first."""
    for axis in sorted((2, 1, 0), key=lambda a: len(positions[a]) / array.shape[a]):
        array = array.take(np.rint(positions[axis]).astype(np.intp), axis)
    return array


def _linear(array: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
    """Slab by slab along the first axis, so that the work stays in cache and needs no large temporaries."""
    low, weight = _neighbours(positions[0], array.shape[0])
    inner = [
        (axis - 1, *_neighbours(positions[axis], n))
        for axis, n in enumerate(array.shape)
        if axis and not np.array_equal(positions[axis], np.arange(n))
    ]
    out = np.empty([len(p) for p in positions], np.float32)
    slabs: dict[int, np.ndarray] = {}  # the two input slabs between which the current output slab lies
    for i, (first, w) in enumerate(zip(low.tolist(), weight)):
        second = min(first + 1, len(array) - 1) if w else first
        slabs = {k: slabs[k] if k in slabs else _slab(array[k], inner) for k in (first, second)}
        np.multiply(slabs[first], 1 - w, out=out[i])
        if w:
            out[i] += w * slabs[second]
    return out


def _slab(slab: np.ndarray, inner: list[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray:
    """One input slab, interpolated along those of its two axes that change."""
    slab = slab.astype(np.float32)
    for axis, low, weight in inner:
        a = slab.take(low, axis)
        b = slab.take(np.minimum(low + 1, slab.shape[axis] - 1), axis)
        b -= a
        b *= weight[:, None] if axis == 0 else weight[None, :]
        slab = np.add(a, b, out=a)
    return slab


def _neighbours(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Index of the voxel at or before each position, and the float32 weight of the next one."""
    low = np.minimum(np.floor(position), max(size - 2, 0)).astype(np.intp)
    return low, (position - low).astype(np.float32)


def by_matrix(array: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """Sample `array` (x y z) at `matrix @ (i, j, k, 1)` for every voxel of a grid of `shape`.

    Parallel grids, whatever their axis order and direction, take the path of `along_axes`.
    """
    axes = _parallel(matrix, shape)
    if axes is not None:
        positions = [matrix[a, b] * np.arange(shape[b]) + matrix[a, 3] for a, b in enumerate(axes)]
        return along_axes(array, positions, order).transpose(np.argsort(axes))
    from scipy import ndimage  # not at the start of every command: most scans never need it

    source = array if order == NEAREST else array.astype(np.float32)
    out = np.empty(shape, source.dtype)
    step = max(1, SLAB_VOXELS // max(shape[1] * shape[2], 1))
    limit = np.array(array.shape, np.float64).reshape(3, 1, 1, 1) - 1
    for start in range(0, shape[0], step):
        index = np.indices((min(step, shape[0] - start), *shape[1:]), np.float64)  # 3 x y z
        index[0] += start
        position = np.tensordot(matrix[:3, :3], index, 1) + matrix[:3, 3].reshape(3, 1, 1, 1)
        position = np.clip(position, 0, limit)
        ndimage.map_coordinates(source, position, out[start : start + step], order=order, mode="nearest")
    return out


def _parallel(matrix: np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """For each input axis the output axis parallel to it, or None where the grids are turned against each other."""
    axes = np.abs(matrix[:3, :3]).argmax(axis=1)
    if sorted(axes) != [0, 1, 2]:
        return None
    rest = matrix[:3, :3].copy()
    rest[np.arange(3), axes] = 0
    drift = np.abs(rest) @ (np.array(shape) - 1.0)  # voxels, over the whole grid
    return tuple(int(a) for a in axes) if drift.max() < 1e-4 else None
