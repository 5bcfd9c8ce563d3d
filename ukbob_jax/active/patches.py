"""Units of annotation, boxes of voxels, and the greedy choice of the best ones that do not overlap.

A whole scan is a box too: the one that is as large as the scan.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Size = tuple[int, int, int]  # voxels, x y z


class Unit(NamedTuple):
    """What a person annotates at a time."""

    subject: str
    start: Size  # its lowest corner
    size: Size
    score: float = 0.0  # the higher, the more it is worth to annotate

    @property
    def voxels(self) -> int:
        """Number of voxels to annotate."""
        return math.prod(self.size)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Index of the unit in its scan."""
        x, y, z = (slice(low, low + side) for low, side in zip(self.start, self.size))
        return x, y, z


def overlap(a: Unit, others: Iterable[Unit]) -> float:
    """Fraction of `a` that any of `others` covers; 0 where faces only touch."""
    covered = np.zeros(a.size, bool)
    for b in others:
        if b.subject == a.subject:
            low = [max(q - p, 0) for p, q in zip(a.start, b.start)]
            high = [max(q + n - p, 0) for p, q, n in zip(a.start, b.start, b.size)]
            covered[tuple(map(slice, low, high))] = True
    return float(covered.mean())


def free_starts(shape: Sequence[int], size: Size, taken: Iterable[Unit], allowed: float = 0.0) -> np.ndarray:
    """Find where a patch may lie.

    Args:
        shape: of the scan, voxels.
        size: of the patch, at most the scan's.
        taken: units of this scan that are labelled or chosen.
        allowed: fraction of the patch that they may cover.
    Returns:
        bool, per lowest corner: the patch lies within the scan and at most `allowed` of it is taken.
    """
    starts = tuple(length - side + 1 for length, side in zip(shape, size))
    if allowed > 0:
        mask = np.zeros(tuple(shape), np.int64)
        for unit in taken:
            mask[unit.box] = 1
        return _box_sums(mask, size) <= allowed * math.prod(size)
    free = np.ones(starts, bool)
    for unit in taken:
        block(free, unit, size)
    return free


def block(free: np.ndarray, unit: Unit, size: Size) -> None:
    """Mark the lowest corners from which a patch of `size` would share a voxel with `unit`, in place."""
    low = [max(start - side + 1, 0) for start, side in zip(unit.start, size)]
    high = [start + length for start, length in zip(unit.start, unit.size)]
    free[tuple(map(slice, low, high))] = False


def greedy(
    subject: str,
    scores: np.ndarray,
    shape: Sequence[int],
    size: Size,
    number: int,
    taken: Sequence[Unit] = (),
    allowed: float = 0.0,
) -> list[Unit]:
    """Take the best patch of a scan, then the best that does not overlap it, and so on (nnActive, Lüth et al. 2025).

    Args:
        subject: whose scan.
        scores: per lowest corner, as `uncertainty.box_mean` gives them; of equals the first in C order is taken.
        shape: of the scan, voxels.
        size: of the patch.
        number: at most so many; fewer where no more fit.
        taken: units of this scan that are labelled already.
        allowed: fraction of a patch that labelled and chosen ones may cover.
    """
    taken, chosen = list(taken), []
    free = free_starts(shape, size, taken, allowed)
    while len(chosen) < number and free.any():
        best = np.unravel_index(int(np.argmax(np.where(free, scores, -np.inf))), free.shape)
        unit = Unit(subject, (int(best[0]), int(best[1]), int(best[2])), size, float(scores[best]))
        chosen.append(unit)
        if allowed > 0:
            free = free_starts(shape, size, taken + chosen, allowed)
            free[best] = False
        else:
            block(free, unit, size)
    return chosen


def best_of_all(candidates: Iterable[Unit], number: int) -> list[Unit]:
    """The best candidates of all scans, best first; of equals the first."""
    return sorted(candidates, key=lambda unit: -unit.score)[:number]


def _box_sums(mask: np.ndarray, size: Size) -> np.ndarray:
    """Exact sums of integers over every box."""
    total = mask
    for axis, side in enumerate(size):
        sums = np.concatenate([np.zeros_like(total.take([0], axis)), total.cumsum(axis)], axis)
        total = sums.take(range(side, sums.shape[axis]), axis) - sums.take(
            range(sums.shape[axis] - side), axis
        )
    return total
