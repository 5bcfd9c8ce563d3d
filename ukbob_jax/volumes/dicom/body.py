"""Where the body is, from the images alone."""

import cc3d
import numpy as np
from scipy import ndimage

BINS = 256
BRIGHT = 97.5  # percentile at which intensities are cut off: fat near the coils outshines the rest
SIGMA_MM = 1.5  # of the smoothing
CLOSE_MM = 5.0  # half the widest crack that is bridged: skin folds; between arm and flank it stays open
KEEP = 0.01  # of the largest piece; arms and legs may be pieces of their own


def body_mask(signal: np.ndarray, spacing_mm: tuple[float, float, float], station: np.ndarray) -> np.ndarray:
    """The body with everything inside it, lungs and bowel gas too.

    A threshold per station, because each has its own gain. Then over the whole scan: close, fill the holes of every
    axial slice, and keep the pieces that are not specks.

    Args:
        signal: `x y z`, bright in fat and in water, such as in-phase.
        spacing_mm: x y z.
        station: `x y z`, number of the station; 0, where there is none, is outside.
    Returns:
        `x y z`, bool.
    """
    smooth = ndimage.gaussian_filter(
        signal.astype(np.float32), [SIGMA_MM / s for s in spacing_mm], truncate=2
    )
    mask = np.zeros(signal.shape, bool)
    for number, part in enumerate(ndimage.find_objects(station.astype(np.int32)), 1):
        if part is not None:  # a station may have lost every voxel to its neighbours
            own = station[part] == number
            mask[part] |= own & (smooth[part] > threshold(smooth[part][own]))
    mask = _close(mask, [round(CLOSE_MM / s) for s in spacing_mm[:2]])
    mask = fill_slices(mask)
    return _without_specks(mask)


def threshold(values: np.ndarray) -> float:
    """Half way between air and tissue, where the edge of a blurred body lies.

    Otsu's split is taken of the roots: of the signal itself it may separate fat from muscle instead.
    """
    some = values[:: max(1, values.size // 1_000_000)]
    air = some <= otsu(np.sqrt(some.clip(min=0))) ** 2
    return (
        float((np.median(some[air]) + np.median(some[~air])) / 2)
        if 0 < air.sum() < air.size
        else float(some.min())
    )


def otsu(values: np.ndarray) -> float:
    """The threshold that separates values into two classes of least variance (Otsu 1979); bright ones cut off first."""
    top = float(np.percentile(values, BRIGHT))
    low = float(values.min())
    if top <= low:
        return low
    counts, edges = np.histogram(np.minimum(values, top), BINS, (low, top))
    centres = (edges[1:] + edges[:-1]) / 2
    below, above = counts.cumsum(), counts.sum() - counts.cumsum()
    mass = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(edges[1 + np.nanargmax(between[:-1])])


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """`x y z` bool with the holes of every axial slice filled."""
    return np.stack(
        [np.asarray(ndimage.binary_fill_holes(mask[:, :, z])) for z in range(mask.shape[2])], axis=-1
    )


def _close(mask: np.ndarray, radii: list[int]) -> np.ndarray:
    """Closed in the plane by a rectangle of the given radii, voxels; the border counts as outside."""
    padded = np.pad(mask, [(radius, radius) for radius in radii] + [(0, 0)])
    for extreme in (ndimage.maximum_filter1d, ndimage.minimum_filter1d):
        for axis, radius in enumerate(radii):
            padded = extreme(padded.view(np.uint8), 2 * radius + 1, axis, mode="constant")
    return padded[radii[0] : radii[0] + mask.shape[0], radii[1] : radii[1] + mask.shape[1]].astype(bool)


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Without the pieces that are small beside the largest."""
    pieces = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=6)
    counts = np.bincount(pieces.ravel())
    counts[0] = 0
    return (counts >= max(1, KEEP * counts.max()))[pieces]
