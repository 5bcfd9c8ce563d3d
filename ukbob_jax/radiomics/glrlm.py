"""Grey-level run lengths: runs of voxels of one level along 13 directions, 16 features.

One pass over the box for each axis that leads: run lengths are carried from plane to plane, and a run is counted where it
ends, for all organs at once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.radiomics import directions, neighbours, size_matrices
from ukbob_jax.radiomics.regions import Cells, Regions

NAMES = {
    "GrayLevelNonUniformity": "level_nonuniformity",
    "GrayLevelNonUniformityNormalized": "level_nonuniformity_normalised",
    "GrayLevelVariance": "level_variance",
    "HighGrayLevelRunEmphasis": "high",
    "LongRunEmphasis": "large",
    "LongRunHighGrayLevelEmphasis": "large_high",
    "LongRunLowGrayLevelEmphasis": "large_low",
    "LowGrayLevelRunEmphasis": "low",
    "RunEntropy": "entropy",
    "RunLengthNonUniformity": "size_nonuniformity",
    "RunLengthNonUniformityNormalized": "size_nonuniformity_normalised",
    "RunPercentage": "percentage",
    "RunVariance": "size_variance",
    "ShortRunEmphasis": "small",
    "ShortRunHighGrayLevelEmphasis": "small_high",
    "ShortRunLowGrayLevelEmphasis": "small_low",
}
_FEW = 512  # voxels


def glrlm(
    regions: Regions, cells: Cells, weighting: str, merge: bool, *, flat_too: bool = False
) -> dict[str, np.ndarray]:
    """Compute the 16 features of every organ, (k,) float64.

    Args:
        weighting: "" or the norm by which directions are weighted, distances in mm (pyradiomics' weightingNorm).
        merge: sum the matrices of all directions first (IBSI's merged form).
        flat_too: use also directions in which no line holds two voxels of the organ, such as those across an organ of
            one plane; all runs have length 1 there. pyradiomics leaves them out.
    """
    steps = neighbours.offsets((1,))
    weights = None
    if weighting in ("", "no_weighting"):
        weights = np.ones(len(steps)) if merge or weighting else None
    else:
        weights = directions.lengths(steps, regions.spacing_mm, weighting)
    counts, start = run_counts(regions, cells, steps)
    if not flat_too:
        length = np.diff(start, append=counts.shape[1])
        organ = cells.organ.repeat(length)
        longer = (counts > 0) & (np.arange(counts.shape[1]) > start.repeat(length))
        first = np.searchsorted(organ, np.arange(regions.count))
        counts = counts * hold_two(regions, steps, np.logical_or.reduceat(longer, first, axis=1))[:, organ]
    counts = directions.combine(counts, weights)
    direction, at = np.nonzero(counts)
    cell = np.searchsorted(start, at, side="right") - 1
    size = at - start[cell] + 1
    k = regions.count
    group = direction * k + cells.organ[cell]
    number = counts[direction, at].astype(np.float64)
    found, whole = size_matrices.features(group, len(counts) * k, cell, cells.level[cell], size, number)
    valid = (whole > 0).reshape(-1, k)
    return {name: directions.mean(found[kind].reshape(-1, k), valid) for name, kind in NAMES.items()}


def hold_two(regions: Regions, steps: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Tell in which directions a line holds two voxels of an organ, (13, k) bool; where that is `known`, nobody looks."""
    known = known.copy()
    undecided = np.logical_not(np.all(known, axis=0))
    voxel = np.flatnonzero(undecided[regions.organ])
    owner, position = regions.organ[voxel], regions.position[:, voxel]
    order = np.argsort(owner, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
    far = max(regions.shape)
    for most in (_FEW, int(regions.sizes.max())):  # a few voxels of an organ tell in most cases
        for direction, step in enumerate(steps):
            row = known[direction]
            at = np.flatnonzero(~row[owner] & (rank < most))
            lead = int((step != 0).argmax())
            key = owner[at]
            for axis in range(3):
                if axis != lead:  # where the line crosses plane 0 of the leading axis
                    across = position[axis, at] - step[axis] * position[lead, at]
                    key = key * (3 * far) + across + far
            key, number = np.unique(key, return_counts=True)
            known[direction, key[number > 1] // (3 * far) ** 2] = True
    return known


def run_counts(regions: Regions, cells: Cells, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count runs by direction, cell and length.

    Returns:
        Counts (13, r), and where each cell's counts begin in r (c,), from length 1.
    Raises:
        ValuesError: as `neighbours.count`.
    """
    longest = np.concatenate([[1], (regions.last - regions.first + 1).max(1)[cells.organ[1:]]])
    start = np.concatenate([[0], np.cumsum(longest)[:-1]])
    entries = int(longest.sum())
    neighbours.check_size(entries * len(steps), cells)
    size = neighbours.table_size(entries, len(steps))
    base = neighbours.stretched(start - 1, neighbours.table_size(len(start), 1, neighbours.LEAST_CELLS))
    box = regions.filled(cells.of_voxel, np.int32).reshape(regions.shape)
    counts = np.zeros((len(steps), entries), np.int32)
    leading = (steps != 0).argmax(1)
    for axis in range(3):  # the axis along which every step of these directions moves
        mine = np.flatnonzero(leading == axis)
        others = [a for a in range(3) if a != axis]
        planes = box.transpose(axis, *others)
        found = _runs(planes, base, tuple(map(tuple, steps[mine][:, others].tolist())), size)
        counts[mine] = np.asarray(found).reshape(len(mine), size)[:, :entries]
    return counts, start


@functools.partial(jax.jit, static_argnames=("shifts", "size"))
def _runs(planes: jax.Array, base: jax.Array, shifts: tuple[tuple[int, int], ...], size: int) -> jax.Array:
    """Count the runs along directions that move one plane on and by `shifts` in it; the margin of 0 ends every run."""

    def step(carry: tuple, plane: jax.Array) -> tuple[tuple, None]:
        counts, before, lengths = carry
        longer = []
        for i, shift in enumerate(shifts):
            back = (-shift[0], -shift[1])
            goes_on = jnp.roll(plane, back, (0, 1)) == before
            ends = (before > 0) & ~goes_on
            at = jnp.where(ends, _take(base, before) + lengths[i], size - 1) + i * size
            counts = counts.at[at.reshape(-1)].add(1, mode="promise_in_bounds")
            longer.append(jnp.roll(jnp.where(goes_on, lengths[i], 0), shift, (0, 1)) + 1)
        return (counts, plane, jnp.stack(longer)), None

    plane = planes.shape[1:]
    start = (
        jnp.zeros(len(shifts) * size, jnp.int32),
        jnp.zeros(plane, jnp.int32),
        jnp.ones((len(shifts), *plane), jnp.int32),
    )
    (counts, _, _), _ = lax.scan(step, start, planes)
    return counts


def _take(table: jax.Array, at: jax.Array) -> jax.Array:
    return table.at[at].get(mode="promise_in_bounds")
