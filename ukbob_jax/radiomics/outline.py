"""Shape of a slice's mask by its outline: nine features, by pyradiomics' names and definitions.

The outline runs through the midpoints between voxels inside and outside (marching squares); two voxels that touch at a
corner only stay apart.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

NAMES = tuple(
    f"shape2D_{name}"
    for name in (
        "Elongation", "MajorAxisLength", "MaximumDiameter", "MeshSurface", "MinorAxisLength", "Perimeter",
        "PerimeterSurfaceRatio", "PixelSurface", "Sphericity",
    )
)  # fmt: skip


def outline(mask: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """Measure a mask.

    Args:
        mask: `x y`, bool, at least one voxel set.
        spacing_mm: (2,), along x y.
    Returns:
        "shape2D_..." -> mm, mm² or a ratio.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    pixel = spacing.prod()
    surface, perimeter, points = _traced(np.pad(mask, 1), spacing)
    where = np.argwhere(mask) * spacing
    # population covariance; rounding may leave a line's smaller eigenvalue below 0
    minor, major = np.clip(np.linalg.eigvalsh(np.cov(where, rowvar=False, ddof=0)), 0, None)
    hull = points[ConvexHull(points).vertices]
    elongation = np.sqrt(minor / major) if major > 0 else np.nan
    sphericity = 2 * np.sqrt(np.pi * surface) / perimeter
    found = (
        elongation, 4 * np.sqrt(major), pdist(hull).max(), surface, 4 * np.sqrt(minor), perimeter,
        perimeter / surface, len(where) * pixel, sphericity,
    )  # fmt: skip
    return dict(zip(NAMES, map(float, found), strict=True))


def _traced(padded: np.ndarray, spacing: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Area inside the outline, its length, and the points (p, 2) that it runs through; `padded` has a border of False."""
    low = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    a, b, c, d = (corner.astype(np.int64) for corner in low)
    inside = a + b + c + d
    diagonal = (inside == 2) & (a == d)
    along_y, along_x = (inside == 2) & (a == b), (inside == 2) & (a == c)
    corners = (inside == 1).sum() + (inside == 3).sum() + 2 * diagonal.sum()
    half = np.hypot(*(spacing / 2))
    straight = spacing[1] * along_y.sum() + spacing[0] * along_x.sum()
    eighths = np.array([0, 1, 4, 7, 8])[inside] - 2 * diagonal  # of a cell
    points = [
        np.argwhere(np.diff(padded.astype(np.int8), axis=axis) != 0) + offset
        for axis, offset in ((0, (0.5, 0.0)), (1, (0.0, 0.5)))
    ]
    return (
        float(eighths.sum() / 8 * spacing.prod()),
        float(straight + corners * half),
        np.concatenate(points) * spacing,
    )
