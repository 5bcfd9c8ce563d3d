"""Voxels of every class, drawn once at ingest, so that a balanced crop needs no scan of the label."""

import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.store.schema import SAMPLES


def draw(label: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Draw up to `SAMPLES` voxels of each class in `label`, without repetition; the same label gives the same voxels.

    Args:
        label: `x y z`, uint8; 0 (background) and 255 (ignore) are not sampled.
    Returns:
        Class ids present, ascending (k of them), and their voxels `k n 3`, int16, -1 beyond a class's last voxel.
    """
    flat = label.ravel()
    foreground = np.flatnonzero((flat != 0) & (flat != IGNORE))
    classes = flat[foreground]
    order = foreground[np.argsort(classes, kind="stable")]  # uint8: a radix sort, linear
    counts = np.bincount(classes, minlength=256)
    starts = np.cumsum(counts) - counts
    present = np.flatnonzero(counts)
    voxels = np.full((len(present), SAMPLES, 3), -1, np.int16)
    rng = np.random.default_rng(0)
    for row, organ in enumerate(present):  # at most 254 classes, each a draw of 512
        number = min(SAMPLES, counts[organ])
        chosen = rng.choice(counts[organ], number, replace=False, shuffle=False)
        flat_index = order[starts[organ] + np.sort(chosen)]
        voxels[row, :number] = np.stack(np.unravel_index(flat_index, label.shape), axis=-1)
    return present.tolist(), voxels


def valid(voxels: np.ndarray) -> np.ndarray:
    """Return the drawn voxels of one class, `n 3` int32, from its padded row `n 3`."""
    return voxels[voxels[:, 0] >= 0].astype(np.int32)
