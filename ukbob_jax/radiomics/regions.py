"""The voxels of all organs of a scan in one list, with their grey levels: what every family counts from.

A *cell* is one grey level of one organ. Cells are numbered from 1, organ by organ and level by level, only levels that
occur; 0 is outside. So one integer per voxel says organ and level, and two voxels are alike where their cells are equal.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_LARGEST_TABLE = 2**20  # label ids beyond are searched for
_BUCKET = (
    32  # voxels; sizes of boxes are rounded up to multiples, so that a cohort compiles a handful of programs
)


@dataclasses.dataclass(frozen=True)
class Regions:
    """Voxels of k organs inside the box around them all, which has a margin of 0 on every side."""

    shape: tuple[int, int, int]  # of the box with its margin, rounded up
    margin: int  # voxels at the low side of each axis
    spacing_mm: np.ndarray  # (3,)
    position: np.ndarray  # (3, n) int32: where each voxel is in the box, in ascending order
    organ: np.ndarray  # (n,) int64: 0 to k - 1
    values: np.ndarray  # (n,) float64
    sizes: np.ndarray  # (k,) voxels of each organ, at least 1
    first: np.ndarray  # (k, 3): first plane of each organ in the box, along x y z
    last: np.ndarray  # (k, 3)

    @property
    def count(self) -> int:
        """Number of organs, k."""
        return len(self.sizes)

    @functools.cached_property
    def voxels(self) -> np.ndarray:
        """Place of each voxel in the flat box, (n,) int64, ascending."""
        x, y, z = self.position.astype(np.int64)
        return (x * self.shape[1] + y) * self.shape[2] + z

    @functools.cached_property
    def box(self) -> np.ndarray:
        """Organ of every voxel of the box, from 1; 0 outside: as few bytes as hold them."""
        numbers = self.organ + 1
        return self.filled(numbers, np.min_scalar_type(self.count + 1)).reshape(self.shape)

    @functools.cached_property
    def by_value(self) -> np.ndarray:
        """Values organ by organ, ascending within each, (n,)."""
        short = self.values.astype(np.float32)
        if np.array_equal(short, self.values):  # organ and value then fit into one integer of the same order
            return _sorted_together(self.organ, short)
        return self.values[np.lexsort((self.values, self.organ))]

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """Where each organ begins in `by_value`, (k,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    def filled(self, per_voxel: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
        """Put a number per voxel into the flat box; 0 elsewhere."""
        box = np.zeros(int(np.prod(self.shape)), dtype)
        box[self.voxels] = per_voxel
        return box


def _rows(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Replace every label by its place in `ids`, from 1; 0 where it is none of them."""
    number = np.arange(1, len(ids) + 1).astype(np.min_scalar_type(len(ids)))
    if labels.max() < _LARGEST_TABLE:
        row_of = np.zeros(int(labels.max()) + 1, number.dtype)
        row_of[ids] = number
        return row_of[labels]
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids[order], labels), len(ids) - 1)
    return np.where(ids[order][place] == labels, number[order][place], number.dtype.type(0))


def _sorted_together(organ: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sort float32 values by organ, then by value; float64. Integers of 64 bits sort many times faster than pairs."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0 becomes 0
    negative = bits >> 31
    bits ^= (negative * np.uint32(0x7FFFFFFF)) | np.uint32(0x80000000)  # now in the order of the values
    key = (organ.astype(np.uint64) << np.uint64(32)) | bits
    key.sort()
    bits = key.astype(np.uint32)
    negative = 1 - (bits >> 31)
    bits ^= (negative * np.uint32(0x7FFFFFFF)) | np.uint32(0x80000000)
    return bits.view(np.float32).astype(np.float64)


def collect(
    image: np.ndarray, labels: np.ndarray, spacing_mm: Sequence[float], ids: np.ndarray, margin: int
) -> Regions:
    """List the voxels of the organs `ids`, each of which occurs in `labels`.

    Args:
        image, labels: `x y z`.
        ids: (k,) label values.
        margin: voxels around the box, so that neighbours need no check of the border.
    """
    rows = _rows(labels, ids)
    planes = [np.flatnonzero(rows.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(int(p[0]), int(p[-1]) + 1) for p in planes)
    rows, inside = rows[box], image[box]
    shape = tuple(-(-(n + 2 * margin) // _BUCKET) * _BUCKET for n in rows.shape)
    there = np.flatnonzero(rows)
    organ = rows.reshape(-1)[there].astype(np.int64) - 1
    values = np.ascontiguousarray(inside).reshape(-1)[there].astype(np.float64)
    line, z = np.divmod(there, rows.shape[2])
    x, y = np.divmod(line, rows.shape[1])
    position = np.empty((3, len(there)), np.int32)
    for axis, at in enumerate((x, y, z)):
        position[axis] = at + margin
    k = len(ids)
    first, last = np.empty((k, 3), np.int64), np.empty((k, 3), np.int64)
    for axis, at in enumerate(position):
        seen = np.bincount(organ * shape[axis] + at, minlength=k * shape[axis]).reshape(k, -1) > 0
        first[:, axis], last[:, axis] = seen.argmax(1), shape[axis] - 1 - seen[:, ::-1].argmax(1)
    sizes = np.bincount(organ, minlength=k)
    spacing = np.asarray(spacing_mm, np.float64)
    return Regions(shape, margin, spacing, position, organ, values, sizes, first, last)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True)
class Cells:
    """Grey levels of the organs of `Regions`; c cells, cell 0 is outside."""

    of_voxel: np.ndarray  # (n,) int32
    organ: np.ndarray  # (c,) of each cell; -1 outside
    level: np.ndarray  # (c,) int64; 0 outside
    voxels: np.ndarray  # (c,) voxels of each cell
    first: np.ndarray  # (k,) first cell of each organ
    levels: np.ndarray  # (k,) how many levels of each organ occur
    highest: np.ndarray  # (k,) greatest level of each organ

    @functools.cached_property
    def pairs(self) -> "Pairs":
        """All pairs of levels of one organ."""
        start = np.concatenate([[0], np.cumsum(self.levels**2)])
        inside = np.repeat(np.arange(len(self.levels)), self.levels**2)
        at = np.arange(start[-1]) - start[inside]
        rank = np.divmod(at, self.levels[inside])
        return Pairs(start, inside, *(self.first[inside] + r for r in rank))


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Every pair of cells of one organ, organ by organ, in rows of the first cell."""

    start: np.ndarray  # (k + 1,) where each organ's pairs begin
    organ: np.ndarray  # (t,)
    one: np.ndarray  # (t,) cell
    other: np.ndarray  # (t,) cell


def cells(level: np.ndarray, organ: np.ndarray, count: int) -> Cells:
    """Number the levels that occur, organ by organ.

    Args:
        level: (n,) from 1.
        organ: (n,) 0 to `count` - 1.
    """
    base = np.concatenate([[0], np.cumsum(np.full(count, level.max()))])
    key = base[organ] + level - 1
    voxels = np.bincount(key, minlength=base[-1])
    there = np.flatnonzero(voxels)
    number = np.zeros(len(voxels), np.int32)
    number[there] = np.arange(1, len(there) + 1)
    of_organ, of_level = np.divmod(there, level.max())
    levels = np.bincount(of_organ, minlength=count)
    first = 1 + np.concatenate([[0], np.cumsum(levels)[:-1]])
    highest = of_level[first + levels - 2] + 1
    return Cells(
        number[key],
        np.concatenate([[-1], of_organ]),
        np.concatenate([[0], of_level + 1]),
        np.concatenate([[0], voxels[there]]),
        first,
        levels,
        highest,
    )
