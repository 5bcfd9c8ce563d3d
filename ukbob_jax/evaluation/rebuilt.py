"""What a network made of an image, beside what it saw and the truth: one picture of central slices."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ukbob_jax.volumes.slices import PLANES, rescale_intensity, slice_for_display

GAP = 4  # white pixels between slices
SMALLEST = 192  # pixels of the longest side of a volume


def picture(
    seen: np.ndarray, rebuilt: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Return `h w 3` uint8: in columns what was seen, rebuilt and true; in rows the axial, coronal and sagittal middle.

    Images share the grey values of the truth. Classes, which are integers, go from black to white, and what was seen
    then has grey values of its own.

    Args:
        seen: `x y z` in RAS.
        rebuilt: `x y z`.
        truth: `x y z`.
        spacing_mm: of a voxel, x y z: slices keep their shape in mm.
    """
    low, high = np.percentile(truth, (1, 99.5))
    if np.issubdtype(truth.dtype, np.integer):
        low, high, grey = 0, max(truth.max(), 1), rescale_intensity(seen)
    else:
        grey = _between(seen, low, high)
    columns = [grey, _between(rebuilt, low, high), _between(truth, low, high)]
    size = np.array(truth.shape) * np.asarray(spacing_mm)
    pixel = size.max() / max(SMALLEST, *truth.shape)
    pixels = np.maximum(np.round(size / pixel).astype(int), 1)
    index = [
        np.minimum((np.arange(n) + 0.5) / n * length, length - 1).astype(int)
        for n, length in zip(pixels, truth.shape)
    ]
    rows = []
    for plane in ("axial", "coronal", "sagittal"):
        cut = [
            slice_for_display(column[np.ix_(*index)], plane, pixels[PLANES[plane]] // 2) for column in columns
        ]
        rows.append([np.pad(one, GAP // 2, constant_values=1.0) for one in cut])
    width = max(row[0].shape[1] for row in rows)
    lines = [np.concatenate([_wide(one, width) for one in row], axis=1) for row in rows]
    return np.repeat(np.round(255 * np.concatenate(lines)).astype(np.uint8)[..., None], 3, axis=-1)


def png(array: np.ndarray) -> bytes:
    """Return `h w 3` uint8 as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def _between(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Grey values 0..1 of `low` to `high`; black where a value is not finite."""
    finite = np.nan_to_num(np.asarray(image, np.float32), nan=low, posinf=high, neginf=low)
    return np.clip((finite - low) / max(high - low, 1e-6), 0, 1)


def _wide(image: np.ndarray, width: int) -> np.ndarray:
    """A slice in the middle of white of that width."""
    missing = width - image.shape[1]
    return np.pad(image, ((0, 0), (missing // 2, missing - missing // 2)), constant_values=1.0)
