"""Images as int16 on disk, as they are or with one slope and intercept per channel; as float32 where that loses much."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.errors import ValuesError
from ukbob_jax.volumes import intensity

LIMITS = np.iinfo(np.int16)
Scale = tuple[float, ...] | None  # a number per channel; None: voxels are stored as they were
LOSS = 1e-3  # of the interquartile range of the tissue: an error beyond it is not accepted
ROUNDING = 2.0**-22  # of a value: float32's own, of the value and of slope times step
BLOCK = 2**18  # values that are worked on at a time, in the processor's cache


class Encoded(NamedTuple):
    """An image as it is stored.

    Attributes:
        stored: `x y z c`, int16, or float32 where int16 would lose too much.
        slope, intercept: per channel; None where the values are native or float32.
        remark: why float32; "": int16.
    """

    stored: np.ndarray
    slope: Scale
    intercept: Scale
    remark: str = ""


def encode(image: np.ndarray, subject: str, contrasts: Sequence[str] = ()) -> Encoded:
    """Convert voxel values to int16 with `image = stored * slope + intercept`, or to float32.

    Integral values that fit are kept (no slope), integral values within 65,536 steps are shifted without loss, all
    else is rounded to 1/32767 of the channel's largest magnitude, zero staying zero. What that loses is measured: one
    hot voxel makes the steps too coarse for all tissue. Where a channel errs by more than `LOSS` of the interquartile
    range of its non-zero voxels, the image is stored as float32.

    Args:
        image: `x y z c`, any real dtype.
        subject: for the message.
        contrasts: names of the channels, for the remark; empty: their numbers.
    Raises:
        ValuesError: voxels are NaN or infinite, the message counts them and names the first; or float32 loses too much.
    """
    image = np.asarray(image)
    if image.dtype == np.int16:
        return Encoded(image, None, None)
    ends = [(float(image[..., c].min()), float(image[..., c].max())) for c in range(image.shape[-1])]
    if not np.isfinite(ends).all():
        check_finite(image, subject)
    fits = [_fit(image[..., channel], *ends[channel]) for channel in range(image.shape[-1])]
    if all(fit == (1.0, 0.0) for fit in fits):
        return Encoded(image.astype(np.int16), None, None)
    stored = np.empty_like(image, np.int16)
    for channel, (slope, intercept) in enumerate(fits):
        for old, new in _slabs(image[..., channel], stored[..., channel]):
            steps = np.rint((old - intercept) / slope)
            new[...] = steps.clip(LIMITS.min, LIMITS.max)
    names = contrasts or [str(channel) for channel in range(image.shape[-1])]
    for channel, fit in enumerate(fits):
        spread = tissue_spread(image[..., channel])
        if (
            most_lost(fit[0], ends[channel]) <= LOSS * spread
        ):  # cannot err by more: spares a pass over the voxels
            continue
        error = loss(image[..., channel], stored[..., channel], *fit, spread)
        if error > LOSS * spread:
            remark = (
                f"float32: as int16, channel {names[channel]} would be off by up to {error:.3g}, and half of its "
                f"tissue lies within {spread:.3g}; its extremes are {ends[channel][0]:.3g} and {ends[channel][1]:.3g}"
            )
            return Encoded(_as_float(image, subject, names), None, None, remark)
    return Encoded(stored, tuple(slope for slope, _ in fits), tuple(intercept for _, intercept in fits))


def decode(stored: np.ndarray, slope: Scale, intercept: Scale) -> np.ndarray:
    """Return values as the scanner gave them: `stored` itself where native or float32, else float32; `x y z c`."""
    if slope is None:
        return stored
    return stored * np.asarray(slope, np.float32) + np.asarray(intercept, np.float32)


def tissue_spread(channel: np.ndarray) -> float:
    """Return the interquartile range of the non-zero voxels of `x y z`, in a large scan of every n-th plane, row, column."""
    low, high = intensity.percentiles(channel, (25.0, 75.0))
    return high - low


def loss(channel: np.ndarray, stored: np.ndarray, slope: float, intercept: float, spread: float) -> float:
    """Return how far what is read from `stored` is from `channel` at most, float64, in the units of `channel`.

    Where the tissue has no spread, differences within float32's own rounding of a value count as none.

    Args:
        channel: `x y z`.
        stored: `x y z`, as `encode` made it.
        spread: of the channel, see `tissue_spread`.
    """
    error, rounding = 0.0, 0.0 if spread > 0 else ROUNDING
    for old, new in _slabs(channel, stored):
        wide, read = old.astype(np.float64), decode(new, (slope,), (intercept,)).astype(np.float64)
        error = max(error, float((np.abs(read - wide) - rounding * np.abs(wide)).max()))
    return error


def most_lost(slope: float, ends: tuple[float, float]) -> float:
    """Return what rounding to a step and to float32 can change at most: half a step, and the roundings of a value.

    The quotient is rounded in float32 before it is rounded to a step, hence a little more than half.
    """
    return 0.51 * slope + 2 * ROUNDING * max(map(abs, ends))


def _as_float(image: np.ndarray, subject: str, names: Sequence[str]) -> np.ndarray:
    """Return `image` as float32.

    Raises:
        ValuesError: even that loses more than `LOSS` of a channel's spread.
    """
    with np.errstate(over="ignore"):
        stored = image.astype(np.float32)
    for channel, name in enumerate(names):
        low, high = intensity.percentiles(image[..., channel], (25.0, 75.0))
        ulp = float(np.spacing(np.float32(max(abs(low), abs(high)))))
        if not np.isfinite(stored[..., channel]).all() or (high > low and ulp > 2 * LOSS * (high - low)):
            raise ValuesError(
                f"{subject}: channel {name}: float32 cannot tell its tissue apart, half of which lies between {low:.9g} "
                f"and {high:.9g}. Subtract a constant, or repair the file."
            )
    return stored


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
