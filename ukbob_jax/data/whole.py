"""Images, whole or in part, as a network takes them; for validation and probes, one at a time."""

from collections.abc import Sequence

import numpy as np

from ukbob_jax.store.reader import Store
from ukbob_jax.volumes import intensity

Voxel = tuple[int, int, int]


def read_image(store: Store, subject: str, contrasts: tuple[str, ...], normalize: str) -> np.ndarray:
    """Return a whole image as the network takes it: `x y z c`, float32."""
    return _normal(store, subject, store.read(subject, "image"), contrasts, normalize)


def read_window(
    store: Store, subject: str, contrasts: tuple[str, ...], normalize: str, start: Voxel, size: Voxel
) -> np.ndarray:
    """Return a part of an image as the network takes it: `x y z c`, float32, 0 beyond the scan.

    Args:
        start: of the window, voxels x y z; below 0 and beyond the scan too, see `tiles`.
        size: of the window.
    """
    shape = store.rows[subject].shape
    low = [max(first, 0) for first in start]
    high = [min(first + n, end) for first, n, end in zip(start, size, shape)]
    inside = tuple(end - first for first, end in zip(low, high))
    stored = store.crop(subject, "image", (low[0], low[1], low[2]), (inside[0], inside[1], inside[2]))
    image = _normal(store, subject, stored, contrasts, normalize)
    before = [inner - first for inner, first in zip(low, start)]
    return np.pad(image, [*((b, n - b - i) for b, n, i in zip(before, size, inside)), (0, 0)])


def tiles(shape: Sequence[int], size: Sequence[int]) -> list[np.ndarray]:
    """Return, along x y z, the first voxels of the fewest windows of `size` that cover a scan, evenly spread.

    A window larger than the scan has it in the middle, as training's crops do, and so starts below 0.
    """
    starts = []
    for length, side in zip(shape, size):
        number = max(-(-length // side), 1)
        last = length - side if length >= side else -((side - length) // 2)
        starts.append(np.round(np.linspace(0, last, number) if number > 1 else [last]).astype(int))
    return starts


def _normal(
    store: Store, subject: str, stored: np.ndarray, contrasts: tuple[str, ...], normalize: str
) -> np.ndarray:
    row = store.rows[subject]
    channels = row.channel_indices(contrasts)
    stats = intensity.Statistics(**{name: tuple(v[c] for c in channels) for name, v in row.intensity.items()})
    return intensity.normalize(stored[..., channels], stats, normalize)
