"""Stations to one volume: resampled to one grid, overlaps blended, a map of who gave each voxel."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.errors import GeometryError, ValuesError
from ukbob_jax.volumes import resample
from ukbob_jax.volumes.volume import Volume

PARALLEL = 1e-3  # direction cosines of two stations may differ by rounding, not by more
SNAP = 0.01  # voxels; positions nearer to a voxel centre are that centre: headers round


class Stitched(NamedTuple):
    """A whole scan.

    Attributes:
        image: `x y z c`, RAS, float32; 0 where no station was.
        station: `x y z`, uint8, the number from 1 of the station with the largest weight; 0 where none was.
        seam_costs: per pair of neighbours |a - b| summed over their overlap and channels, over the sum of (a + b) / 2:
            0 where they agree, 2 where one is empty; None without overlap.
        gaps_mm: heights, first and last, between stations that do not reach each other.
    """

    image: Volume
    station: Volume
    seam_costs: tuple[float | None, ...]
    gaps_mm: tuple[tuple[float, float], ...]


class Part(NamedTuple):
    """A station on the common grid.

    Attributes:
        start: its first voxel there, 3.
        channels: `x y z` float32 each, of the voxels between its own first and last centres: nothing is extrapolated.
        weights: `z`, positive.
    """

    start: tuple[int, ...]
    channels: tuple[np.ndarray, ...]
    weights: np.ndarray

    @property
    def box(self) -> tuple[slice, ...]:
        """The voxels of the grid that the station covers."""
        return tuple(slice(low, low + n) for low, n in zip(self.start, self.channels[0].shape))


def stitch(stations: Sequence[Volume], spacing_mm: Sequence[float] = ()) -> Stitched:
    """Join the stations of one scan.

    The grid runs along the axes of the largest station and through its voxel centres in the plane, and covers all
    stations. In an overlap the weights fall and rise as half a cosine and sum to 1; each station is interpolated
    linearly between its own voxel centres only.

    Args:
        stations: `x y z c` each, RAS, from head to knee.
        spacing_mm: of the grid; empty: the largest station's in the plane, the least of all along z.
    Raises:
        GeometryError: the stations are turned against each other.
        ValuesError: the spacing is not three positive numbers.
    """
    largest = max(stations, key=lambda one: one.array[..., 0].size)
    directions = largest.affine[:3, :3] / largest.spacing_mm
    spacing = np.array(spacing_mm or (*largest.spacing_mm[:2], min(one.spacing_mm[2] for one in stations)))
    if spacing.shape != (3,) or not (spacing > 0).all():
        raise ValuesError(f"spacing_mm {spacing_mm}: expected three positive numbers, x y z, or ().")
    lows, highs = np.array([extent(one, directions) for one in stations]).swapaxes(0, 1)  # n 3 each, mm
    anchor = extent(largest, directions)[0]
    first = np.ceil((lows.min(0) - anchor) / spacing - SNAP)  # whole steps from a voxel centre of the largest
    origin = anchor + first * spacing
    shape = tuple((np.floor((highs.max(0) - origin) / spacing + SNAP) + 1).astype(int))
    ramps = weights(lows[:, 2], highs[:, 2], origin[2] + spacing[2] * np.arange(shape[2]), spacing[2])
    parts = [place(one, low, origin, spacing, shape, ramp) for one, low, ramp in zip(stations, lows, ramps)]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * spacing, directions @ origin
    image, station = blend(parts, shape)
    return Stitched(
        Volume(image, affine),
        Volume(station, affine),
        tuple(seam_cost(upper, lower) for upper, lower in itertools.pairwise(parts)),
        gaps(lows[:, 2], highs[:, 2]),
    )


def extent(station: Volume, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A station's first and last voxel centre along the common axes, mm, 3 each.

    Raises:
        GeometryError: its axes are not those.
    """
    own = station.affine[:3, :3] / station.spacing_mm
    if (apart := np.abs(own - directions).max()) > PARALLEL:
        raise GeometryError(
            f"A station is turned against the others: direction cosines differ by {apart:.6g}, at most {PARALLEL:g} "
            "is accepted. Leave the scan out, or register its stations first."
        )
    low = directions.T @ station.affine[:3, 3]
    return low, low + (np.array(station.shape) - 1) * station.spacing_mm


def weights(lows: np.ndarray, highs: np.ndarray, heights: np.ndarray, step: float) -> np.ndarray:
    """How much each station counts at each height, `n z`: 1, and a half cosine where two neighbours overlap.

    Args:
        lows, highs: heights of each station's first and last slice, mm, from head to knee.
        heights: of the grid's slices, mm.
        step: between them; keeps the weights at the ends of an overlap off 0, so that a neighbour with a smaller
            field of view in the plane leaves no hole.
    """
    found = np.ones((len(lows), len(heights)))
    for upper in range(len(lows) - 1):
        low, high = lows[upper], highs[upper + 1]  # the overlap
        if low <= high:
            share = np.clip((heights - low + step / 2) / (high - low + step), 0, 1)
            rising = 0.5 - 0.5 * np.cos(np.pi * share)
            found[upper] *= rising
            found[upper + 1] *= 1 - rising
    return found


def place(
    station: Volume,
    low: np.ndarray,
    origin: np.ndarray,
    spacing: np.ndarray,
    shape: Sequence[int],
    ramp: np.ndarray,
) -> Part:
    """A station resampled to those voxels of the grid that lie between its own voxel centres."""
    scale = np.asarray(station.spacing_mm)
    grid = [
        (origin[a] + spacing[a] * np.arange(shape[a]) - low[a]) / scale[a] for a in range(3)
    ]  # its voxels
    inside = [(axis > -SNAP) & (axis < n - 1 + SNAP) for axis, n in zip(grid, station.shape)]
    positions = [axis[mask] for axis, mask in zip(grid, inside)]
    positions = [np.where(np.abs(p - np.rint(p)) < SNAP, np.rint(p), p) for p in positions]
    channels = np.moveaxis(station.array, -1, 0)
    sampled = tuple(resample.along_axes(channel, positions, resample.LINEAR) for channel in channels)
    return Part(tuple(int(mask.argmax()) for mask in inside), sampled, ramp[inside[2]])


def blend(parts: Sequence[Part], shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean of the parts `x y z c` float32, and the part with the largest weight `x y z` uint8, from 1."""
    image = np.zeros((len(parts[0].channels), *shape), np.float32)  # c x y z: one channel at a time in memory
    total, best = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    station = np.zeros(shape, np.uint8)
    for number, part in enumerate(parts, 1):
        weight = part.weights.astype(np.float32)[None, None, :]
        for whole, channel in zip(image, part.channels):
            whole[part.box] += channel * weight
        total[part.box] += weight
        station[part.box] = np.where(weight > best[part.box], number, station[part.box])
        best[part.box] = np.maximum(best[part.box], weight)
    image /= np.where(total > 0, total, 1)
    return np.moveaxis(image, 0, -1), station


def seam_cost(upper: Part, lower: Part) -> float | None:
    """How far two neighbours disagree where both were; see `Stitched`."""
    shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(upper.box, lower.box)]
    if any(part.start >= part.stop for part in shared):
        return None
    one, two = (
        np.stack([channel[_within(shared, part)] for channel in part.channels]) for part in (upper, lower)
    )
    level = float((one + two).mean(dtype=np.float64) / 2)
    return round(float(np.abs(one - two).mean(dtype=np.float64)) / level, 4) if level else 0.0


def _within(shared: Sequence[slice], part: Part) -> tuple[slice, ...]:
    """A box of the grid in a part's own voxels."""
    return tuple(slice(box.start - low, box.stop - low) for box, low in zip(shared, part.start))


def gaps(lows: np.ndarray, highs: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Heights between neighbours that do not reach each other, mm."""
    pairs = zip(highs[1:], lows[:-1])
    return tuple((round(float(low), 2), round(float(high), 2)) for low, high in pairs if low < high)
