"""One pass over a label map that counts, for all classes at once, what every measure is computed from.

Everything counted is an integer, so the result is exact whatever the order of work. The pass looks at the 2x2x2 cells
between voxel centres. A cell whose eight corners carry one label holds no surface and no end of a run of voxels along
z, so it is skipped; memory is linear in voxels, and time hardly depends on the number of classes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.anatomy import IGNORE  # also surrounds the volume
from ukbob_jax.errors import GeometryError

LONGEST_AXIS = 1024  # voxels; beyond it a 32-bit sum could overflow
_BUCKET = 64  # cells; axes are rounded up to multiples, so that a cohort compiles a handful of programs
_COUNT_BITS = 11  # hold the voxels of one line; the sum of their z, above them, still fits 32 bits
_UNIFORM = 0x01010101  # times a label: the word of four neighbours that all carry it
_GROUP = 4  # neighbouring cells along z that are kept or skipped together
# Planes of cells in a step, and groups in a chunk: what a processor's cache holds, or what fills an accelerator.
_WORK = {"cpu": (4, 2048)}
_WORK_ELSEWHERE = (32, 131072)


class LabelCounts(NamedTuple):
    """Counts per class k; x, y, z are planes of voxels."""

    cells: jax.Array  # k 256: cells showing each corner pattern of the class, uniform cells left out
    along_x: jax.Array  # k x: voxels in each plane
    along_y: jax.Array  # k y
    along_z: jax.Array  # k z
    y_by_x: jax.Array  # k x: sum of the y positions of each plane's voxels
    z_by_x: jax.Array  # k x
    z_by_y: jax.Array  # k y
    highest: jax.Array  # greatest label there is, `IGNORE` apart


def label_counts(labels: np.ndarray | jax.Array, num_classes: int) -> LabelCounts:
    """Count `labels`, `x y z` uint8, class by class; works on arrays and inside jit and vmap.

    Raises:
        GeometryError: not three axes, an empty axis, or one longer than `LONGEST_AXIS`.
    """
    if labels.ndim != 3 or not all(0 < n <= LONGEST_AXIS for n in labels.shape):
        raise GeometryError(
            f"label map of shape {tuple(labels.shape)}: need x y z with 1 to {LONGEST_AXIS} voxels each. "
            "Split or resample it."
        )
    x, y, z = labels.shape
    slab, chunk = _WORK.get(jax.default_backend(), _WORK_ELSEWHERE)
    counts = _label_counts(_frame(labels), num_classes, slab, chunk)
    return LabelCounts(
        cells=counts.cells,
        along_x=counts.along_x[:, :x],
        along_y=counts.along_y[:, :y],
        along_z=counts.along_z[:, :z],
        y_by_x=counts.y_by_x[:, :x],
        z_by_x=counts.z_by_x[:, :x],
        z_by_y=counts.z_by_y[:, :y],
        highest=counts.highest,
    )


def _frame(labels: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """Surround the volume by at least one voxel of `IGNORE` and round its cells up to whole buckets."""
    after = [-(n + 1) % _BUCKET + 1 for n in labels.shape]
    xp = jnp if isinstance(labels, jax.Array) else np
    return xp.pad(labels, [(1, n) for n in after], constant_values=IGNORE)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _label_counts(framed: jax.Array, num_classes: int, slab: int, chunk: int) -> LabelCounts:
    """Count a framed volume: cell (x, y, z) has the voxel (x, y, z) as its last corner."""
    cells_x, cells_y, cells_z = (n - 1 for n in framed.shape)
    rows = num_classes + 1  # the last one takes what belongs to no class

    def step(carry: tuple, i: jax.Array) -> tuple[tuple, tuple]:
        cells, along_z, along_y, z_by_y = carry
        planes = lax.dynamic_slice_in_dim(framed, i * slab, slab + 1, 0)
        cells, along_z, both = _count_slab(planes, cells, along_z, rows, chunk)
        both = both.reshape(rows, slab, cells_y)  # k x y
        count, z_sum = both & (1 << _COUNT_BITS) - 1, both >> _COUNT_BITS
        y_sum = _sum(count * jnp.arange(cells_y, dtype=jnp.int32)[None, None, :], 2)
        carry = cells, along_z, along_y + _sum(count, 1), z_by_y + _sum(z_sum, 1)
        return carry, (_sum(count, 2), y_sum, _sum(z_sum, 2))

    zeros = functools.partial(_zeros, framed)
    start = (zeros(rows * 256), zeros(rows * cells_z), zeros((rows, cells_y)), zeros((rows, cells_y)))
    steps = jnp.arange(cells_x // slab, dtype=jnp.int32)
    (cells, along_z, along_y, z_by_y), by_x = lax.scan(step, start, steps)
    along_x, y_by_x, z_by_x = (jnp.moveaxis(a, 0, 1).reshape(rows, cells_x) for a in by_x)
    along_z = jnp.cumsum(along_z.reshape(rows, cells_z), 1, dtype=jnp.int32)
    by_class = (cells.reshape(rows, 256), along_x, along_y, along_z, y_by_x, z_by_x, z_by_y)
    highest = jnp.max(jnp.where(framed == IGNORE, 0, framed))
    return LabelCounts(*(a[:num_classes] for a in by_class), highest=highest)


def _count_slab(
    planes: jax.Array, cells: jax.Array, along_z: jax.Array, rows: int, chunk: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Add one slab's cells to the counts; also its voxels and, `_COUNT_BITS` higher, the sum of their z, by class, x and y.

    Voxels are counted by the ends of their runs along z: a run over [first, end) holds `end - first` voxels whose
    z sum to `T(end) - T(first)`, T(z) = z (z - 1) / 2. `along_z` gets the differences; a cumulative sum undoes them.
    """
    words = _words(planes)
    slab, cells_y, size_z = words.shape
    cells_z = size_z - 1
    in_row = cells_z // _GROUP
    kept, number = _kept_groups(words, chunk)
    words = words.reshape(-1)

    def add(i: jax.Array, counts: tuple) -> tuple:
        cells, along_z, both = counts
        group = lax.dynamic_slice_in_dim(kept, i * chunk, chunk)
        row = group // in_row
        z = (group % in_row * _GROUP)[:, None] + jnp.arange(_GROUP + 1, dtype=jnp.int32)[None, :]
        edge = words.at[row[:, None] * size_z + z].get(mode="fill", fill_value=_UNIFORM * IGNORE)
        label = jnp.minimum(_corners(edge), rows - 1)  # 8 n
        cells = cells.at[pattern_keys(label, rows).reshape(-1)].add(1, mode="promise_in_bounds")
        z = z[:, :_GROUP].reshape(-1)
        row = jnp.repeat(jnp.minimum(row, slab * cells_y - 1), _GROUP)
        before, after = label[6].astype(jnp.int32), label[7].astype(jnp.int32)  # along z, at the last x and y
        for which, sign in ((before, 1), (after, -1)):
            which = jnp.where(before != after, which, rows - 1)
            upto = z + (z * (z - 1) >> 1 << _COUNT_BITS)
            both = both.at[which * (slab * cells_y) + row].add(sign * upto, mode="promise_in_bounds")
            along_z = along_z.at[which * cells_z + z].add(-sign, mode="promise_in_bounds")
        return cells, along_z, both

    empty = _zeros(planes, rows * slab * cells_y)
    return lax.fori_loop(0, -(-number // chunk), add, (cells, along_z, empty))


def _words(planes: jax.Array) -> jax.Array:
    """Pack the four neighbours in x and y at each z, one byte each, `x y z` uint32: half a cell in one read."""
    planes = planes.astype(jnp.uint32)
    return (
        planes[:-1, :-1] | planes[:-1, 1:] << 8 | planes[1:, :-1] << 16 | planes[1:, 1:] << 24
    )  # byte 2 dx + dy


def _corners(words: jax.Array) -> jax.Array:
    """Unpack the labels of every cell's eight corners from neighbouring words, `n z` -> `8 n`: 4 dx + 2 dy + dz."""
    ends = words[:, :-1].reshape(-1), words[:, 1:].reshape(-1)
    return jnp.stack([(ends[i % 2] >> (8 * (i // 2))).astype(jnp.uint8) for i in range(8)])


def _kept_groups(words: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    """List the groups of cells that are not uniform, padded at the end, and count them."""
    first, last = words[..., :-1], words[..., 1:]
    mixed = (first != last) | (first != (first & 255) * _UNIFORM)
    mixed = mixed.reshape(-1, _GROUP).any(1)
    groups = mixed.shape[0]
    place = jnp.cumsum(mixed, dtype=jnp.int32)
    size = -(-groups // chunk) * chunk
    kept = jnp.full(size, groups, jnp.int32)
    kept = kept.at[jnp.where(mixed, place - 1, size)].set(jnp.arange(groups, dtype=jnp.int32), mode="drop")
    return kept, place[-1]


def pattern_keys(label: jax.Array, rows: int) -> jax.Array:
    """Return where each corner's class counts its pattern, `8 n`: class * 256 + pattern, once per class and cell."""
    bits = jnp.left_shift(jnp.uint8(1), jnp.arange(8, dtype=jnp.uint8))
    same = label[:, None, :] == label[None, :, :]
    pattern = jnp.sum(jnp.where(same, bits[None, :, None], jnp.uint8(0)), axis=1, dtype=jnp.uint8)
    lowest = pattern & (~pattern + jnp.uint8(1))
    which = jnp.where(lowest == bits[:, None], label, jnp.asarray(rows - 1, label.dtype))
    return which.astype(jnp.int32) * 256 + pattern.astype(jnp.int32)


def _sum(counts: jax.Array, axis: int) -> jax.Array:
    """Sum, staying 32-bit where 64-bit numbers are switched on."""
    return jnp.sum(counts, axis, dtype=jnp.int32)


def _zeros(like: jax.Array, shape: int | tuple[int, ...]) -> jax.Array:
    """Make counters to start from, tied to `like`, so that inside shard_map they differ by device as the counts do."""
    return jnp.zeros(shape, jnp.int32) + (like.reshape(-1)[0] * 0).astype(jnp.int32)
