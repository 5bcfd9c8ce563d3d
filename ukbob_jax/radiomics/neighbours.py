"""One pass over all voxels and their neighbours that counts what GLCM, GLDM and NGTDM are computed from.

Everything counted is an integer, so the counts are exact whatever the device and the order of work. A table holds all
organs one behind the other, each as large as its own levels need, so time and memory depend on voxels and levels, not on
the number of organs.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.errors import ValuesError
from ukbob_jax.radiomics.regions import Cells, Regions

MOST_ENTRIES = 2**28  # of a table of counts, four bytes each
CHUNK = 2**17  # voxels counted in a step
_LOW = 20  # bits of a sum that are kept apart from those above
_LEAST_TABLE = (
    2**21
)  # entries; smaller tables are padded, so that the number of grey levels compiles no program anew
LEAST_CELLS = 2**10


class Neighbours(NamedTuple):
    """Counts; c cells, t pairs of cells of one organ (`Cells.pairs`), a offsets, one of each opposite two."""

    pairs: np.ndarray  # (a, t) int32: voxels of one cell whose neighbour at the offset is of the other
    dependence: np.ndarray  # (c, 2 a + 1): voxels with so many neighbours of (nearly) their level
    difference: np.ndarray  # (c,) float64: sum over voxels of |level - mean level of the neighbours|
    alone: np.ndarray  # (c,): voxels without a neighbour


def offsets(distances: tuple[int, ...]) -> np.ndarray:
    """List the offsets whose greatest component is one of `distances`, one of each opposite two, (a, 3)."""
    reach = range(-max(distances), max(distances) + 1)
    every = (step for step in itertools.product(reach, repeat=3) if max(map(abs, step)) in distances)
    return np.array([step for step in every if step > (0, 0, 0)])


def count(regions: Regions, cells: Cells, steps: np.ndarray, alpha: int = 0) -> Neighbours:
    """Look at the neighbours of every voxel of every organ, within the organ.

    Args:
        steps: (a, 3) offsets along x y z, none longer than the margin of `regions`.
        alpha: levels that differ by so much still depend on each other (GLDM).
    Raises:
        ValuesError: so many grey levels that the tables would not fit into memory.
    """
    pairs, c = cells.pairs, len(cells.level)
    t = int(pairs.start[-1])
    check_size(t * len(steps), cells)
    safe = (2**31 - 2**_LOW) // (int(cells.highest.max()) * 2 * len(steps))  # no sum of a step passes 32 bits
    chunk, whole = chunks(len(regions.voxels), min(CHUNK, max(safe, 1)))
    listed = np.zeros(whole, np.int32)
    listed[: len(regions.voxels)] = regions.voxels  # place 0 is outside, so padding counts nothing
    start = np.concatenate([[0], pairs.start[cells.organ[1:]]])  # of each cell's organ
    first = np.concatenate([[1], cells.first[cells.organ[1:]]])
    width = np.concatenate([[0], cells.levels[cells.organ[1:]]])
    # a pair of cells (one, other) is counted at base[one] + other
    base = start + (np.arange(c) - first) * width - first
    near = 2 * len(steps) + 1
    size, span = table_size(t, len(steps)), table_size(c, near, LEAST_CELLS)
    tables = [stretched(v, span) for v in (base, first, first + width - 1, cells.level)]
    strides = np.array([regions.shape[1] * regions.shape[2], regions.shape[2], 1])
    box = regions.filled(cells.of_voxel, np.int32)
    found, dependence, alone, low, high = _count(
        box,
        listed.reshape(-1, chunk),
        -(-len(regions.voxels) // chunk),
        (steps @ strides).astype(np.int32),
        alpha,
        *tables,
        size=size,
    )
    found = np.asarray(found).reshape(len(steps), size)[:, :t]
    dependence = np.array(dependence).reshape(span, near)[:c]
    total = joined(low, high).reshape(span, near)[:c]  # by number of neighbours
    difference = (total / np.maximum(np.arange(near), 1)).sum(1)
    dependence[0] = 0  # what padded the list
    alone = np.asarray(alone)[:c].astype(np.int64)
    alone[0] = 0
    return Neighbours(found, dependence, difference, alone)


def check_size(entries: int, cells: Cells) -> None:
    """Refuse grey levels for which a table of counts would have more than `MOST_ENTRIES`.

    Raises:
        ValuesError: with the number of levels.
    """
    if entries > MOST_ENTRIES:
        raise ValuesError(
            f"{int(cells.levels.max())} grey levels in one organ, {int(cells.levels.sum())} in all: their tables would not "
            "fit into memory. Give a larger bin_width, or bin_count."
        )


def chunks(voxels: int, most: int) -> tuple[int, int]:
    """Choose how many voxels to count in a step, a power of 2 up to `most`, and how long a list of whole steps is.

    The length is a power of 2 too, so that a cohort compiles few programs; steps that are empty are not taken.
    """
    chunk = min(1 << max(most.bit_length() - 1, 0), rounded(voxels - 1))
    return chunk, max(rounded(voxels - 1), chunk)


def rounded(n: int) -> int:
    """Return the next power of 2 above `n`, so that few programs are compiled."""
    return 1 << max(n, 0).bit_length()


def table_size(entries: int, rows: int, most: int = _LEAST_TABLE) -> int:
    """Columns of a table of `rows` rows that hold `entries`: a power of 2, the same one for all small tables.

    Filtered images of one mask have from 1 to some hundred grey levels; each size would be a program of its own.
    """
    return max(rounded(entries), 1 << (min(_LEAST_TABLE // rows, most).bit_length() - 1))


def stretched(values: np.ndarray, size: int) -> np.ndarray:
    """Append zeros up to `size`; int32."""
    return np.concatenate([values, np.zeros(size - len(values), values.dtype)]).astype(np.int32)


@functools.partial(jax.jit, static_argnames="size")
def _count(
    box: jax.Array,
    listed: jax.Array,
    number_of_chunks: jax.Array,
    steps: jax.Array,
    alpha: jax.Array,
    base: jax.Array,
    first: jax.Array,
    last: jax.Array,
    level: jax.Array,
    *,
    size: int,
) -> tuple[jax.Array, ...]:
    """Count chunk by chunk; the last entry of each offset's table takes what is no pair."""
    offsets, near, span = steps.shape[0], 2 * steps.shape[0] + 1, base.shape[0]

    def chunk(i: jax.Array, carry: tuple) -> tuple:
        pairs, dependence, lonely, sums, above = carry
        voxels = listed[i]
        here = _take(box, voxels)
        low, high, own, key = (_take(table, here) for table in (first, last, level, base))
        low = jnp.where(here == 0, 1, low)
        high = jnp.where(here == 0, 0, high)

        def beside(place: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            there = _take(box, place)
            same = (there >= low) & (there <= high)
            return there, same, jnp.where(same, _take(level, there), 0)

        def offset(i: jax.Array, seen: tuple) -> tuple:
            pairs, alike, number, total = seen
            for sign in (1, -1):
                there, same, value = beside(jnp.maximum(voxels + sign * steps[i], 0))
                number, total = number + same, total + value
                alike += same & (jnp.abs(value - own) <= alpha)
                if sign == 1:
                    at = i * size + jnp.where(same, key + there, size - 1)
                    pairs = pairs.at[at].add(1, mode="promise_in_bounds")
            return pairs, alike, number, total

        none = jnp.zeros_like(here)
        pairs, alike, number, total = lax.fori_loop(0, offsets, offset, (pairs, none, none, none))
        dependence = dependence.at[here * near + alike].add(1, mode="promise_in_bounds")
        lonely = lonely.at[jnp.where(number == 0, here, 0)].add(1, mode="promise_in_bounds")
        gap = jnp.abs(own * number - total)
        sums = sums.at[here * near + number].add(gap, mode="promise_in_bounds")
        return pairs, dependence, lonely, *carried(sums, above)

    start = (jnp.zeros(n, jnp.int32) for n in (offsets * size, span * near, span, span * near, span * near))
    return lax.fori_loop(0, number_of_chunks, chunk, tuple(start))


def carried(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Move what sums have above `_LOW` bits into other 32 bits, so that they hold any number of steps."""
    return low & ((1 << _LOW) - 1), high + (low >> _LOW)


def joined(low: jax.Array, high: jax.Array) -> np.ndarray:
    """Return the sums of `carried` as int64."""
    return (np.asarray(high).astype(np.int64) << _LOW) + np.asarray(low)


def _take(table: jax.Array, at: jax.Array) -> jax.Array:
    return table.at[at].get(mode="promise_in_bounds")
