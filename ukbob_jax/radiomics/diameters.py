"""Greatest distances between the vertices of every organ's mesh, in a plane and in space, for all organs at once.

A vertex lies on the middle of the edge between a voxel of the organ and a neighbour over a face that is not of it.
Positions are kept as whole numbers of half voxels. The farthest pair of a plane lies among the ends of the vertices' rows;
planes and points that cannot hold it are dropped by bounds before pairs are looked at, so the result is exact.
"""

import itertools

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from ukbob_jax.radiomics.regions import Regions

_DIRECTIONS = 16  # over half a circle
_SLACK = 1 - 1e-9  # bounds hold but for rounding
_FEW = 64  # points whose pairs are looked at without a hull
_PAIRS = 2**22  # pairs looked at at a time


def diameters(regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """Return greatest distances between vertices of one plane across x, y, z (k, 3), and of all (k,), in mm."""
    organ, half = vertices(regions)
    scale = regions.spacing_mm / 2
    plane = np.zeros((regions.count, 3))
    width = int(half.max()) + 1
    for axis in (2, 1, 0):  # the ends of the last serve for space, too
        row, along = (a for a in range(3) if a != axis)
        owner, ends = _row_ends(organ, half, (axis, row, along))
        new = _changes(owner * width + ends[axis])
        points = np.stack([ends[row] * scale[row], ends[along] * scale[along]])
        plane[:, axis] = _farthest_in_groups(points, np.cumsum(new) - 1, owner[new], regions.count)
    return plane, _farthest_in_space(owner, ends * scale[:, None], regions.count)


def vertices(regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """List the vertices: organ (v,), and position (3, v) in half voxels of the box."""
    box = regions.box
    organs, places = [], []
    for axis in range(3):
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        at = np.nonzero(box[tuple(low)] != box[tuple(high)])
        place = 2 * np.stack(at)
        place[axis] += 1  # midway to the next voxel
        for side in (low, high):  # a face is one of the organ at either side
            number = box[tuple(side)][at].astype(np.int64)
            organs.append(number[number > 0] - 1)
            places.append(place[:, number > 0])
    return np.concatenate(organs), np.concatenate(places, 1)


def _row_ends(
    organ: np.ndarray, half: np.ndarray, axes: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the first and last vertex of every row along `axes[2]`, in the order of organ, plane and row."""
    width = int(half.max()) + 1
    key = organ  # one integer per vertex, which sorts faster than an index
    for axis in axes:
        key = key * width + half[axis]
    key.sort()
    kept = key[_changes(key // width, both=True)]
    found = np.empty((3, len(kept)), np.int64)
    for axis in reversed(axes):
        kept, found[axis] = np.divmod(kept, width)
    return kept, found


def _changes(key: np.ndarray, both: bool = False) -> np.ndarray:
    """Tell where a value of the sorted `key` begins, or, with `both`, where it begins or ends."""
    new = np.concatenate([[True], key[1:] != key[:-1], [True]])
    return new[:-1] | new[1:] if both else new[:-1]


def _farthest_in_groups(points: np.ndarray, group: np.ndarray, owner: np.ndarray, k: int) -> np.ndarray:
    """Return, for each of `k` owners, the greatest distance between two points of one of its groups.

    Args:
        points: (2, n) mm, group by group.
        group: (n,) ascending from 0.
        owner: of each group.
    """
    starts = np.flatnonzero(_changes(group))
    angle = np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS
    tight = np.cos(
        np.pi / (2 * _DIRECTIONS)
    )  # a segment's shadow in the nearest direction is at least so long
    width, reach = np.zeros(len(owner)), np.zeros(points.shape[1])
    for x, y in zip(np.cos(angle), np.sin(angle)):
        shadow = points[0] * x + points[1] * y
        low, high = np.minimum.reduceat(shadow, starts), np.maximum.reduceat(shadow, starts)
        width = np.maximum(width, high - low)
        reach = np.maximum(reach, np.maximum(shadow - low[group], high[group] - shadow))
    least = np.zeros(k)
    np.maximum.at(least, owner, width)  # the diameter is at least as wide as its owner's widest shadow
    able = reach / tight >= least[owner][group] * _SLACK
    return _farthest_pairs(points[:, able], group[able], owner, k)


def _farthest_pairs(points: np.ndarray, group: np.ndarray, owner: np.ndarray, k: int) -> np.ndarray:
    """Look at every pair of points of a group."""
    found = np.zeros(k)
    ends = np.searchsorted(group, group, side="right")
    number = ends - np.arange(len(group))  # pairs that begin with a point, itself among them
    total = np.cumsum(number)
    done = 0
    while done < len(group):
        upto = max(
            int(np.searchsorted(total, (total[done - 1] if done else 0) + _PAIRS, side="right")), done + 1
        )
        count = number[done:upto]
        one = np.repeat(np.arange(done, upto), count)
        other = one + np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
        square = ((points[:, one] - points[:, other]) ** 2).sum(0)
        np.maximum.at(found, owner[group[one]], square)
        done = upto
    return np.sqrt(found)


def _farthest_in_space(organ: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    """Return the greatest distance between two points (3, n) of each organ; they come organ by organ.

    The farthest pair lies on the convex hull, which is found organ by organ, of the few points that can be far enough.
    """
    starts = np.searchsorted(organ, np.arange(k))
    low = np.stack([np.minimum.reduceat(p, starts) for p in points])
    high = np.stack([np.maximum.reduceat(p, starts) for p in points])
    least = np.zeros(k)
    for x in (-1, 0, 1):
        for y in (-1, 0, 1):
            shadow = (points[0] * x + points[1] * y + points[2]) / np.sqrt(x * x + y * y + 1)
            across = np.maximum.reduceat(shadow, starts) - np.minimum.reduceat(shadow, starts)
            least = np.maximum(least, across)
    least = np.maximum(least, (high - low).max(0))
    farthest = np.sqrt(sum(np.maximum(p - a[organ], b[organ] - p) ** 2 for p, a, b in zip(points, low, high)))
    able = farthest >= least[organ] * _SLACK
    kept, mine = points[:, able], organ[able]
    bounds = np.searchsorted(mine, np.arange(k + 1))
    hulls = [_hull(kept[:, a:b]) for a, b in itertools.pairwise(bounds)]
    owner = np.repeat(np.arange(k), [h.shape[1] for h in hulls])
    return _farthest_pairs(np.concatenate(hulls, 1), owner, np.arange(k), k)


def _hull(points: np.ndarray) -> np.ndarray:
    """Keep the corners of the convex hull of (3, n) points; all of a few, or of points in one plane."""
    if points.shape[1] < _FEW:
        return points
    try:
        return points[:, ConvexHull(points.T).vertices]
    except QhullError:  # flat but for rounding
        return points
