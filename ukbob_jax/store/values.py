"""Images as int16 on disk: as they are where they fit, else with one slope and intercept per channel."""

from collections.abc import Iterator

import numpy as np

from ukbob_jax.errors import ValuesError

LIMITS = np.iinfo(np.int16)
Scale = tuple[float, ...] | None  # a number per channel; None: voxels are stored as they were
BLOCK = 2**18  # values that are worked on at a time, in the processor's cache


def encode(image: np.ndarray, subject: str) -> tuple[np.ndarray, Scale, Scale]:
    """Convert voxel values to int16 with `image = stored * slope + intercept`.

    Integral values that fit are kept (no slope), integral values within 65,536 steps are shifted without loss, all
    else is rounded to 1/32767 of the channel's largest magnitude, zero staying zero.

    Args:
        image: `x y z c`, any real dtype.
        subject: for the message.
    Returns:
        Stored values `x y z c` int16; slope and intercept per channel, both None where the values are native.
    Raises:
        ValuesError: voxels are NaN or infinite; the message counts them and names the first.
    """
    image = np.asarray(image)
    if image.dtype == np.int16:
        return image, None, None
    ends = [(float(image[..., c].min()), float(image[..., c].max())) for c in range(image.shape[-1])]
    if not np.isfinite(ends).all():
        check_finite(image, subject)
    fits = [_fit(image[..., channel], *ends[channel]) for channel in range(image.shape[-1])]
    if all(fit == (1.0, 0.0) for fit in fits):
        return image.astype(np.int16), None, None
    stored = np.empty_like(image, np.int16)
    for channel, (slope, intercept) in enumerate(fits):
        for old, new in _slabs(image[..., channel], stored[..., channel]):
            steps = np.rint((old - intercept) / slope)
            new[...] = steps.clip(LIMITS.min, LIMITS.max)
    return stored, tuple(slope for slope, _ in fits), tuple(intercept for _, intercept in fits)


def decode(stored: np.ndarray, slope: Scale, intercept: Scale) -> np.ndarray:
    """Return values as the scanner gave them: `stored` itself (int16) where native, else float32; `x y z c`."""
    if slope is None:
        return stored
    return stored * np.asarray(slope, np.float32) + np.asarray(intercept, np.float32)


def check_finite(image: np.ndarray, subject: str) -> None:
    """Refuse NaN and infinite voxels.

    Raises:
        ValuesError: with their number and the first one's index.
    """
    if image.dtype.kind not in "fc" or np.isfinite(image).all():
        return
    bad = ~np.isfinite(image)
    first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    raise ValuesError(
        f"{subject}: {int(bad.sum())} voxels are NaN or infinite, the first at {first}. Replace them before storing."
    )


def _fit(channel: np.ndarray, low: float, high: float) -> tuple[float, float]:
    whole = channel.dtype.kind in "iub" or all((np.rint(slab) == slab).all() for (slab,) in _slabs(channel))
    if whole:
        if low >= LIMITS.min and high <= LIMITS.max:
            return 1.0, 0.0
        if high - low <= LIMITS.max - LIMITS.min and high < 2**24:  # float32 holds every such integer
            return 1.0, low - LIMITS.min
    return max(abs(low), abs(high)) / LIMITS.max, 0.0


def _slabs(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one shape in step, in parts of about `BLOCK` values that lie together in the first one's memory."""
    first = arrays[0]
    axis = int(np.argmax(np.abs(first.strides)))
    step = max(1, BLOCK * first.shape[axis] // first.size)
    for low in range(0, first.shape[axis], step):
        window = (slice(None),) * axis + (slice(low, low + step),)
        yield tuple(array[window] for array in arrays)
