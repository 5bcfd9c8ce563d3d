"""Fat and water exchanged: the rim of the body is fat, so a watery rim around a fatty core is suspect."""

import numpy as np
from scipy import ndimage

RIM_MM = 8.0
FEWEST = 200  # voxels of rim and of core; less is no evidence


def indicators(
    fat: np.ndarray,
    water: np.ndarray,
    body: np.ndarray,
    station: np.ndarray,
    spacing_mm: tuple[float, float, float],
) -> list[list[float | None]]:
    """Per station, for the body's left and right half: fat fraction of the core minus that of the rim.

    Below 0 in a sound image, above 0 where the two are exchanged; None where too little body is seen. Halves,
    because the reconstruction may exchange one leg only.

    Args:
        fat, water: `x y z`, magnitudes.
        body: `x y z`, bool.
        station: `x y z`, numbers from 1.
        spacing_mm: x y z.
    """
    core = erode_in_plane(body, [max(1, round(RIM_MM / s)) for s in spacing_mm[:2]])
    columns = body.sum((1, 2)).cumsum()
    middle = int(np.searchsorted(columns, columns[-1] / 2))
    left = np.arange(body.shape[0]) < middle  # of the subject: x grows to the right
    region = np.where(body, station, 0).astype(np.int32) * 4 + 2 * left[:, None, None] + core
    size = 4 * (int(station.max()) + 1)
    flat = region.ravel()
    counts = np.bincount(flat, minlength=size).reshape(-1, 2, 2)  # station, right left, rim core
    fats, waters = (np.bincount(flat, signal.ravel(), size).reshape(-1, 2, 2) for signal in (fat, water))
    fraction = fats / np.maximum(fats + waters, 1e-9)
    difference = fraction[..., 1] - fraction[..., 0]
    enough = counts.min(-1) >= FEWEST
    return [
        [round(float(difference[number, side]), 3) if enough[number, side] else None for side in (1, 0)]
        for number in range(1, len(counts))
    ]


def suspected(found: list[list[float | None]]) -> list[int]:
    """Numbers of the stations where either half looks exchanged."""
    return [
        number
        for number, halves in enumerate(found, 1)
        if any(half is not None and half > 0 for half in halves)
    ]


def erode_in_plane(mask: np.ndarray, radii: list[int]) -> np.ndarray:
    """`x y z` bool without what is nearer than `radii` voxels, in x and y, to the outside; the border is outside."""
    for axis, radius in enumerate(radii):
        mask = ndimage.minimum_filter1d(mask, 2 * radius + 1, axis, mode="constant", cval=0)
    return mask
