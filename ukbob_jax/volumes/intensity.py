"""One normalisation of image intensities, the same at ingest, in training and at inference."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.errors import ConfigError, ValuesError

PREPROCESSED = "nnunet"  # method of scans that nnU-Net's preprocessing normalised
LIMIT = 5.0  # standard deviations; keeps a bright vessel or a metal artefact from ruling the scale
LOW, HIGH = 0.5, 99.5  # percentiles
FAT = -50.0  # HU; fat alone brings a CT's lowest percentile below it, and MR is never negative
CENTRE, SPREAD = 50.0, 50.0  # HU; with LIMIT the window -200 to 300, soft tissue and the beginning of bone
NORMAL_RANGE = 2 * 2.5758293  # standard deviations between those percentiles of a normal distribution
SAMPLE = 2**20  # voxels that are enough for the percentiles
BLOCK = 2**16  # voxels that are summed at a time, in the processor's cache


class Statistics(NamedTuple):
    """Per channel, over the non-zero voxels of one scan: air around the body would rule the numbers otherwise.

    Attributes:
        mean, std: of the non-zero voxels; 0 where a channel has none.
        low, high: their 0.5 and 99.5 percentiles; in a large scan those on every n-th plane, row and column, about
            `SAMPLE` voxels or more.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def statistics(image: np.ndarray) -> Statistics:
    """Intensity statistics of a scan.

    Args:
        image: x y z c, any real dtype, finite.
    Raises:
        ValuesError: not 4-D, or NaN or infinite voxels.
    """
    if image.ndim != 4:
        raise ValuesError(f"Statistics need an image of x y z c; got shape {image.shape}.")
    rows = [_channel(image[..., c]) for c in range(image.shape[-1])]
    if not np.isfinite(rows).all():
        raise ValuesError(f"Statistics need finite voxels; mean, std and percentiles are {rows}.")
    return Statistics(*(tuple(column) for column in zip(*rows)))


class Mapping(NamedTuple):
    """What `normalize` does to each channel: `clip((image - offset) / scale, low, high)`; offset and scale float64."""

    offset: np.ndarray
    scale: np.ndarray
    low: float
    high: float


def _channel(channel: np.ndarray) -> tuple[float, float, float, float]:
    count = np.count_nonzero(channel)
    if not count:
        return 0.0, 0.0, 0.0, 0.0
    total = squares = 0.0
    for block in np.array_split(channel.ravel(order="K"), max(1, channel.size // BLOCK)):
        wide = block.astype(np.float64)  # sums of 53 bits: their difference below is good to 1e-8 and better
        total, squares = total + wide.sum(), squares + np.square(wide).sum()
    mean = total / count
    std = np.sqrt(max(squares / count - mean**2, 0.0))
    low, high = percentiles(channel, (LOW, HIGH))
    return float(mean), float(std), low, high


def percentiles(channel: np.ndarray, wanted: Sequence[float]) -> tuple[float, ...]:
    """Percentiles of the non-zero voxels of `x y z`, in a large scan of those on every n-th plane, row and column.

    Returns:
        One per `wanted`; zeros where every voxel is zero.
    """
    step = max(1, int((channel.size / SAMPLE) ** (1 / 3)))
    seen = channel[::step, ::step, ::step].ravel(order="K")
    seen = seen[seen != 0]
    seen = seen if seen.size else channel[channel != 0]
    return tuple(np.percentile(seen, wanted).tolist()) if seen.size else (0.0,) * len(wanted)


def normalize(image: Any, stats: Statistics, method: str) -> Any:
    """Bring intensities to a common scale; a constant channel becomes zeros, never NaN.

    Args:
        image: ... c, a numpy or JAX array, with any number of axes before the channels.
        stats: of the whole scan, also when `image` is a crop of it.
        method: "zscore": (image - mean) / std, clipped to [-5, 5];
            "percentile": the 0.5 to 99.5 percentiles to 0..1, clipped;
            "auto": per channel "zscore", but (image - 50) / 50 clipped to [-5, 5] where it holds HU, that is where its
            0.5 percentile lies below -50: CT has an absolute scale, and air would rule its mean. Where outliers rule
            mean and std, see `heavy_tailed`, those that the 0.5 and 99.5 percentiles of a normal distribution imply;
            "window:LOW:HIGH": LOW to HIGH to 0..1, clipped, such as "window:-160:240" for CT in HU;
            "nnunet": as they are, since nnU-Net's preprocessing normalised them.
    Returns:
        float32, the kind and shape of `image`.
    Raises:
        ConfigError: another method, or a window that is not two ascending numbers.
        ValuesError: the number of channels is not that of `stats`.
    """
    if image.shape[-1] != len(stats.mean):
        raise ValuesError(f"An image of {image.shape[-1]} channels, but statistics of {len(stats.mean)}.")
    offset, scale, low, high = mapping(stats, method)
    shape = (1,) * (image.ndim - 1) + (-1,)
    offset, scale = (np.asarray(v, np.float32).reshape(shape) for v in (offset, scale))
    return ((image.astype(np.float32) - offset) / scale).clip(low, high)


def check_method(method: str) -> None:
    """Refuse an unknown normalisation before any work is done.

    Raises:
        ConfigError: as `normalize`.
    """
    mapping(Statistics((0.0,), (1.0,), (0.0,), (1.0,)), method)


def mapping(stats: Statistics, method: str) -> Mapping:
    """Per channel what to subtract and to divide by, and the range that results are clipped to.

    Raises:
        ConfigError: as `normalize`.
    """
    mean, std, low, high = (np.asarray(column, np.float64) for column in stats)
    if method == "zscore":
        return Mapping(mean, _scale(std, mean), -LIMIT, LIMIT)
    if method == "auto":
        ct = low < FAT
        heavy = heavy_tailed(stats)
        offset = np.where(heavy, (low + high) / 2, mean)
        scale = np.where(heavy, (high - low) / NORMAL_RANGE, _scale(std, mean))
        return Mapping(np.where(ct, CENTRE, offset), np.where(ct, SPREAD, scale), -LIMIT, LIMIT)
    if method == "percentile":
        return Mapping(low, _scale(high - low, low), 0.0, 1.0)
    if method == PREPROCESSED:
        return Mapping(np.zeros_like(mean), np.ones_like(mean), -np.inf, np.inf)
    if not (ends := window(method)):
        raise ConfigError(
            f'normalize={method!r} is not known; expected "auto", "zscore", "percentile", "{PREPROCESSED}" or '
            '"window:LOW:HIGH" with LOW < HIGH.'
        )
    return Mapping(np.full_like(mean, ends[0]), np.full_like(mean, ends[1] - ends[0]), 0.0, 1.0)


def window(method: str) -> tuple[float, float] | None:
    """Return LOW and HIGH of "window:LOW:HIGH"; None for every other text."""
    try:
        word, *ends = method.split(":")
        low, high = (float(end) for end in ends)
    except ValueError:
        return None
    return (low, high) if word == "window" and -np.inf < low < high < np.inf else None


def heavy_tailed(stats: Statistics) -> np.ndarray:
    """Whether outliers rule mean and std, bool per channel: std is more than the range of the middle 99 %.

    Without voxels beyond that range std is at most half of it, so ordinary scans are far from this limit. Never where
    the channel holds HU, whose scale is absolute.
    """
    std, low, high = (np.asarray(column, np.float64) for column in (stats.std, stats.low, stats.high))
    return (low >= FAT) & (high > low) & (std > high - low)


def _scale(spread: np.ndarray, level: np.ndarray) -> np.ndarray:
    """`spread`, or 1 where it is no more than rounding at this intensity level."""
    return np.where(spread > 1e-6 * np.abs(level), spread, 1.0)
