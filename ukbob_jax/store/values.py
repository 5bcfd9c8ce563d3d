"""Images as int16 on disk: as they are where they fit, else with one slope and intercept per channel."""

import numpy as np

from ukbob_jax.errors import ValuesError

LIMITS = np.iinfo(np.int16)


def encode(image: np.ndarray, subject: str) -> tuple[np.ndarray, list[float] | None, list[float] | None]:
    """Voxel values as int16 with `image = stored * slope + intercept`.

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
    check_finite(image, subject)
    fits = [_fit(image[..., channel]) for channel in range(image.shape[-1])]
    if all(fit == (1.0, 0.0) for fit in fits):
        return image.astype(np.int16), None, None
    stored = np.empty(image.shape, np.int16)
    for channel, (slope, intercept) in enumerate(fits):
        steps = np.rint((image[..., channel] - intercept) / slope)
        stored[..., channel] = steps.clip(LIMITS.min, LIMITS.max)
    return stored, [slope for slope, _ in fits], [intercept for _, intercept in fits]


def decode(stored: np.ndarray, slope: list[float] | None, intercept: list[float] | None) -> np.ndarray:
    """Values as the scanner gave them: `stored` itself (int16) where native, else float32. `x y z c`."""
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


def _fit(channel: np.ndarray) -> tuple[float, float]:
    low, high = float(channel.min()), float(channel.max())
    if channel.dtype.kind in "iub" or (np.rint(channel) == channel).all():
        if low >= LIMITS.min and high <= LIMITS.max:
            return 1.0, 0.0
        if high - low <= LIMITS.max - LIMITS.min and high < 2**24:  # float32 holds every such integer
            return 1.0, low - LIMITS.min
    return max(abs(low), abs(high)) / LIMITS.max, 0.0
