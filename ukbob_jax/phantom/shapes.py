"""Analytic shapes in the reference body (mm, RAS), and a canvas that draws them inside their boxes only."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax import anatomy

Point = tuple[float, float, float]
Inside = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Shape(NamedTuple):
    """A region: a box that holds it, and a test for points given as broadcastable x, y, z in mm."""

    low: np.ndarray
    high: np.ndarray
    inside: Inside


def _rotation(turn: Point) -> np.ndarray:
    """Rotation by degrees about x, then y, then z."""
    matrix = np.eye(3)
    for axis, degrees in enumerate(turn):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        step = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        step[i, i], step[j, j], step[i, j], step[j, i] = c, c, -s, s
        matrix = step @ matrix
    return matrix


def ellipsoid(center: Point, radii: Point, turn: Point = (0.0, 0.0, 0.0), power: int = 2) -> Shape:
    """An ellipsoid turned by degrees about x, y, z; `power` 4 gives a box with round edges."""
    rows = _rotation(turn).T / np.array(radii)[:, None]  # world offset -> units of the radii
    rows = rows.astype(np.float32)
    reach = np.sqrt(((_rotation(turn) * np.array(radii)) ** 2).sum(axis=1)) * (1.0 if power == 2 else 1.4)

    def inside(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        dx, dy, dz = x - np.float32(center[0]), y - np.float32(center[1]), z - np.float32(center[2])
        total = 0.0
        for a, b, c in rows:
            u = a * dx + b * dy + c * dz
            u *= u
            total = total + (u if power == 2 else u * u)
        return np.asarray(total < 1.0)

    return Shape(np.array(center) - reach, np.array(center) + reach, inside)


def _capsule(a: np.ndarray, b: np.ndarray, radius_a: float, radius_b: float) -> Shape:
    """A tapered tube with round ends."""
    along = (b - a).astype(np.float32)
    per_length = along / np.float32(along @ along)
    widest = max(radius_a, radius_b)

    def inside(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        dx, dy, dz = x - np.float32(a[0]), y - np.float32(a[1]), z - np.float32(a[2])
        t = np.clip(dx * per_length[0] + dy * per_length[1] + dz * per_length[2], 0, 1)
        dx, dy, dz = dx - t * along[0], dy - t * along[1], dz - t * along[2]
        r = np.float32(radius_a) + t * np.float32(radius_b - radius_a)
        return dx * dx + dy * dy + dz * dz < r * r

    return Shape(np.minimum(a, b) - widest, np.maximum(a, b) + widest, inside)


def tube(points: Sequence[Point], radii: Sequence[float], spacing_mm: Point) -> list[Shape]:
    """A tube along a polyline, as one capsule per piece.

    A tube thinner than the grid would fall into pieces, so a radius is at least 0.55 of the widest voxel edge
    across it.
    """
    corners = np.asarray(points, float)
    pieces = []
    for a, b, ra, rb in zip(corners[:-1], corners[1:], radii[:-1], radii[1:]):
        across = np.sqrt(1 - ((b - a) / np.linalg.norm(b - a)) ** 2)
        least = 0.55 * (spacing_mm * across).max()
        pieces.append(_capsule(a, b, max(ra, least), max(rb, least)))
    return pieces


def column(knots: Sequence[tuple[float, float, float, float, float]]) -> Shape:
    """An upright body with an elliptic section; each knot is z, centre x, centre y, radius x, radius y, z rising."""
    table = np.asarray(knots, float)
    z0, z1 = table[0, 0], table[-1, 0]
    heights = np.arange(z0, z1 + 1.0)
    cx, cy, rx, ry = (np.interp(heights, table[:, 0], table[:, i]).astype(np.float32) for i in range(1, 5))

    def inside(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        i = np.clip((z - np.float32(z0)).astype(np.int32), 0, len(heights) - 1)
        u, v = (x - cx[i]) / rx[i], (y - cy[i]) / ry[i]
        return (u * u + v * v < 1.0) & (z >= z0) & (z <= z1)

    low = np.array([(table[:, 1] - table[:, 3]).min(), (table[:, 2] - table[:, 4]).min(), z0])
    high = np.array([(table[:, 1] + table[:, 3]).max(), (table[:, 2] + table[:, 4]).max(), z1])
    return Shape(low, high, inside)


def mirrored(shape: Shape) -> Shape:
    """The same shape on the other side of the midline."""
    low, high = shape.low.copy(), shape.high.copy()
    low[0], high[0] = -shape.high[0], -shape.low[0]
    return Shape(low, high, lambda x, y, z: shape.inside(-x, y, z))


def clipped(shape: Shape, inside: Inside) -> Shape:
    """The part of a shape where `inside` holds too."""
    return Shape(shape.low, shape.high, lambda x, y, z: shape.inside(x, y, z) & inside(x, y, z))


class Canvas:
    """The label map under construction; later strokes cover earlier ones.

    Each organ is drawn a little displaced and resized (`vary`), the same way for all its strokes.
    """

    def __init__(self, rigid: list[np.ndarray], fields: list[np.ndarray], spacing_mm: Point) -> None:
        self.rigid, self.fields, self.spacing_mm = rigid, fields, spacing_mm
        self.label = np.zeros(fields[0].shape, np.uint8)
        self._slack = [
            float(np.abs(field - np.expand_dims(axis, [j for j in range(3) if j != i])).max())
            for i, (axis, field) in enumerate(zip(rigid, fields))
        ]
        self._shift = np.zeros((anatomy.NUM_CLASSES, 3))
        self._scale = np.ones((anatomy.NUM_CLASSES, 3))

    def vary(self, shift_mm: np.ndarray, scale: np.ndarray) -> None:
        """Displace (mm) and resize (factor) each class; both (73, 3)."""
        self._shift, self._scale = shift_mm, scale

    def box(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, ...]:
        """Index ranges that hold every voxel between two corners, the deformation allowed for."""
        return tuple(
            slice(*np.searchsorted(axis, (a - slack, b + slack)))
            for axis, a, b, slack in zip(self.rigid, low, high, self._slack)
        )

    def draw(self, organ: str, shapes: Shape | Iterable[Shape], over: Sequence[str] | None = None) -> None:
        """Write the organ's id where a shape is; with `over`, only on voxels of the named classes."""
        i = anatomy.IDS[organ]
        shift, scale = self._shift[i], self._scale[i]
        allowed = None
        if over is not None:
            allowed = np.zeros(256, bool)
            allowed[[anatomy.IDS[name] for name in over]] = True
        for shape in [shapes] if isinstance(shapes, Shape) else shapes:
            middle = (shape.low + shape.high) / 2
            half = (shape.high - shape.low) / 2 * scale
            where = self.box(middle + shift - half, middle + shift + half)
            view = self.label[where]
            if view.size == 0:
                continue
            offset = middle - (middle + shift) / scale
            points = [
                field[where] * np.float32(1 / s) + np.float32(o)
                for field, s, o in zip(self.fields, scale, offset)
            ]
            mask = shape.inside(*points)
            if allowed is not None:
                mask &= allowed[view]
            view[mask] = i
