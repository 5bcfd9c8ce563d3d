"""Surface area of a binary mask from its 2x2x2 cells: marching cubes at level one half, as a table.

In a 0/1 mask every crossing lies at the middle of a cell edge, so the surface inside a cell is one of 256 shapes
and its area a function of the corner pattern and the spacing alone. `area_table` holds those areas; a mask's
surface is its histogram of cell patterns times the table.

Corner `i` of a cell is `(i >> 2, (i >> 1) & 1, i & 1)` along x, y, z; bit `i` of a pattern says that corner is inside.
"""

import functools
import itertools
from types import ModuleType

import jax
import numpy as np

# One triangulation for each pattern that differs from the others by more than a rotation or a mirror. A vertex is the
# middle of the edge between two corners ("04"), or the middle of the cell ("cc"). On a face whose inside corners are
# diagonal, the inside is joined: the choice of Lewiner et al. (2003), "Efficient implementation of marching cubes'
# cases with topological guarantees", when the face test is a tie, which it always is for 0/1 values.
_SHAPES = {
    0b00000001: "01 02 04",
    0b00000011: "02 04 13, 04 15 13",
    0b00000110: "01 02 15, 02 26 15, 26 23 15, 23 13 15",
    0b00000111: "04 15 26, 15 13 26, 13 23 26",
    0b00001111: "04 15 26, 15 37 26",
    0b00010110: "01 13 15, 23 02 26, 45 46 04, 02 26 46, 02 46 04, 01 15 45, 01 45 04, 01 13 23, 01 23 02",
    0b00010111: "13 15 23, 15 45 23, 45 46 23, 46 26 23",
    0b00011000: "04 45 46, 13 23 37",
    0b00011001: "01 13 45, 13 37 45, 37 23 46, 23 02 46, 37 46 45",
    0b00011011: "02 23 46, 23 37 15, 23 15 46, 15 45 46",
    0b00011110: "01 02 04, 15 37 26, 15 26 45, 26 46 45",
    0b00011111: "15 37 26, 15 26 45, 26 46 45",
    0b00111100: "02 04 13, 04 15 13, 26 37 46, 37 57 46",
    0b00111101: "01 46 15, 01 26 46, 01 13 26, cc 46 57, cc 57 37, cc 37 26, cc 26 13, cc 13 15, cc 15 46",
    0b00111111: "26 37 46, 37 57 46",
    0b01101001: "01 13 15, 02 23 26, 04 45 46, 37 57 67",
    0b01101011: "02 23 26, 04 45 46, 37 57 67",
    0b01101111: "04 45 46, 37 57 67",
    0b01111110: "01 02 04, 37 57 67",
    0b01111111: "37 57 67",
}
CORNERS = np.array([(i >> 2, (i >> 1) & 1, i & 1) for i in range(8)], np.float64)
_MAX_TRIANGLES = 9


def symmetries() -> list[list[int]]:
    """List the 48 rotations and mirrors of the cube, each as the corner that every corner moves to."""
    moves = itertools.product(itertools.permutations(range(3)), itertools.product((0, 1), repeat=3))
    return [
        [sum((int(corner[axes[a]]) ^ flips[a]) << (2 - a) for a in range(3)) for corner in CORNERS]
        for axes, flips in moves
    ]


@functools.cache
def triangles() -> np.ndarray:
    """Return the vertices of every pattern's triangles inside the unit cell, (256, 9, 3 vertices, 3 axes); zeros fill up."""
    table = np.zeros((256, _MAX_TRIANGLES, 3, 3))
    for (pattern, text), move in itertools.product(_SHAPES.items(), symmetries()):
        moved = sum(1 << move[i] for i in range(8) if pattern >> i & 1)
        for t, triangle in enumerate(text.split(", ")):
            for v, name in enumerate(triangle.split()):
                ends = range(8) if name == "cc" else [move[int(corner)] for corner in name]
                table[moved, t, v] = CORNERS[list(ends)].mean(0)
    return table


def area_table(spacing_mm: np.ndarray | jax.Array, xp: ModuleType = np) -> np.ndarray | jax.Array:
    """Compute the area of the surface inside one cell, for each of the 256 corner patterns.

    The same areas as scikit-image's `marching_cubes(..., level=0.5)` (Lewiner), ambiguous patterns included.

    Args:
        spacing_mm: (3,), size of a cell along x, y, z.
        xp: numpy (float64), or jax.numpy inside a traced function (float32).
    Returns:
        (256,), mm²; 0 for the empty and the full cell.
    """
    corners = xp.asarray(triangles(), dtype=spacing_mm.dtype) * spacing_mm[None, None, None, :]
    a, b = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
    return xp.sum(xp.sqrt(xp.sum(xp.cross(a, b) ** 2, -1)), -1) / 2
