"""The surface mesh of pyradiomics, as tables: area, volume and normal of what a cell of 2x2x2 voxels contributes.

Marching cubes (Lorensen and Cline 1987) with every crossing in the middle of an edge. On a face whose inside corners are
diagonal, the inside is cut apart, in both cells that share the face: the mesh is closed. pyradiomics keeps half of that
table, and turns a cell whose corner `SPECIAL` is inside inside out to look it up; there the *outside* is cut apart. Beside
such a face its mesh has a hole, and the volume depends on where the origin lies: one voxel before the organ's box, as there.
The closed mesh of `quality.surface` joins the inside on such faces, and so has other areas.

Corner `i` of a cell is `(i >> 2, (i >> 1) & 1, i & 1)` along x, y, z; bit `i` of a pattern says that it is inside.
"""

import functools
from typing import NamedTuple

import numpy as np

from ukbob_jax.quality import surface

SPECIAL = 3  # x 0, y 1, z 1
# One triangulation for each pattern that differs from the others by more than a rotation or a mirror; a vertex is the
# middle of the edge between two corners. Where several triangulations are possible, the one of pyradiomics' table, so that
# areas are equal. Seen from outside, the vertices of each triangle run the same way round.
_SHAPES = {
    0b00000001: "04 01 02",
    0b00000011: "04 15 02, 15 13 02",
    0b00000110: "15 13 01, 23 26 02",
    0b00000111: "23 15 13, 23 26 15, 26 04 15",
    0b00010110: "46 45 04, 15 13 01, 23 26 02",
    0b00010111: "15 13 23, 45 15 23, 23 26 45, 46 45 26",
    0b00100100: "45 57 15, 23 26 02",
    0b00100101: "23 26 04, 04 01 23, 45 57 15",
    0b00100111: "57 13 45, 45 13 26, 26 04 45, 23 26 13",
    0b00110011: "46 57 13, 46 13 02",
    0b00110110: "23 26 02, 04 46 01, 46 13 01, 46 57 13",
    0b00110111: "26 46 23, 46 13 23, 46 57 13",
    0b01100110: "13 01 45, 57 13 45, 02 67 46, 23 67 02",
    0b01100111: "57 13 04, 57 04 45, 13 23 04, 67 46 04, 23 67 04",
    0b01110111: "23 67 57, 57 13 23",
    0b10010110: "46 45 04, 23 26 02, 15 13 01, 37 57 67",
    0b10010111: "15 13 23, 45 15 23, 23 26 45, 46 45 26, 37 57 67",
    0b10110111: "23 26 46, 46 13 23, 67 37 46, 46 37 13",
    0b11100111: "04 45 46, 37 13 23",
    0b11110111: "37 13 23",
}
_MOST_TRIANGLES = 5


class Tables(NamedTuple):
    """Per corner pattern, (256, ...)."""

    area: np.ndarray  # mm²
    volume: np.ndarray  # mm³: signed volume between the triangles and the cell's first corner
    normal: np.ndarray  # (256, 3) mm³ per voxel of distance from the origin, along x y z


@functools.cache
def triangles(closed: bool = False) -> np.ndarray:
    """Return each pattern's triangles, facing out, in the unit cell, (256, 5, 3 vertices, 3 axes); zeros fill up.

    Args:
        closed: without pyradiomics' holes.
    """
    corners = surface.CORNERS
    table = np.zeros((256, _MOST_TRIANGLES, 3, 3))
    for pattern, text in _SHAPES.items():
        for move in surface.symmetries():
            moved = sum(1 << move[i] for i in range(8) if pattern >> i & 1)
            mirrored = np.linalg.det(corners[[move[4], move[2], move[1]]] - corners[move[0]]) < 0
            for t, triangle in enumerate(text.split(", ")):
                ends = [[move[int(corner)] for corner in name] for name in triangle.split()]
                vertices = np.array([corners[end].mean(0) for end in ends])
                table[moved, t] = vertices if mirrored else vertices[::-1]
    if closed:
        return table
    inside_out = table[::-1, :, ::-1]  # of the pattern whose corners are the other ones
    special = (np.arange(256) >> SPECIAL & 1).astype(bool)
    return np.where(special[:, None, None, None], inside_out, table)


def tables(spacing_mm: np.ndarray, closed: bool = False) -> Tables:
    """Compute the tables for cells of `spacing_mm`, (3,); `closed` as for `triangles`."""
    a, b, c = np.moveaxis(triangles(closed), 2, 0)
    cross = np.cross(b - a, c - a)
    volume_mm3 = spacing_mm.prod()
    scaled = cross * (volume_mm3 / spacing_mm)  # areas of faces along each axis scale by the other two
    return Tables(
        np.sqrt((scaled**2).sum(-1)).sum(1) / 2,
        (np.cross(a, b) * c).sum((1, 2)) / 6 * volume_mm3,
        cross.sum(1) / 6 * volume_mm3,
    )
