"""Voxels of every class, drawn once at ingest, so that a balanced crop needs no scan of the label."""

from collections.abc import Mapping

import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.store.schema import ANATOMY, ANONYMISATION, SAMPLES

BLOCK = 2**16  # voxels that are sorted at a time; a place in them is a uint16


def centres(name: str, labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return where crops may be centred for label set `name`: the label, of anatomy only what was not anonymised.

    Args:
        name: a key of `labels`.
        labels: per label set, `x y z` uint8.
    """
    if name != ANATOMY or ANONYMISATION not in labels:
        return labels[name]
    return np.where(labels[ANONYMISATION] == 0, labels[ANATOMY], np.uint8(0))


def draw(label: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Draw up to `SAMPLES` voxels of each class in `label`, without repetition; the same label gives the same voxels.

    Args:
        label: `x y z`, uint8; 0 (background) and 255 (ignore) are not sampled.
    Returns:
        Class ids present, ascending (k of them), and their voxels `k n 3`, int16, -1 beyond a class's last voxel.
    """
    order, counts = _sorted_blocks(label.ravel())
    earlier = np.cumsum(counts, axis=0) - counts  # voxels of the class in the blocks before
    starts = np.cumsum(counts, axis=1) - counts  # where the class begins in the block's order
    totals = counts.sum(axis=0)
    present = [organ for organ in np.flatnonzero(totals).tolist() if organ not in (0, IGNORE)]
    voxels = np.full((len(present), SAMPLES, 3), -1, np.int16)
    rng = np.random.default_rng(0)
    for row, organ in enumerate(present):  # at most 254 classes, each a draw of 512
        number = min(SAMPLES, totals[organ])
        chosen = np.sort(rng.choice(totals[organ], number, replace=False, shuffle=False))
        block = np.searchsorted(earlier[:, organ], chosen, side="right") - 1
        place = starts[block, organ] + chosen - earlier[block, organ]
        flat_index = block * BLOCK + order[block * BLOCK + place]
        voxels[row, :number] = np.stack(np.unravel_index(flat_index, label.shape), axis=-1)
    return present, voxels


def _sorted_blocks(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort the voxels of every block by class, in the processor's cache.

    Returns:
        Voxels of each block by class and then by place, as places in their block, uint16; and how many voxels each
        block has of each class, `blocks 256`.
    """
    order = np.empty(flat.size, np.uint16)
    counts = np.empty((-(-flat.size // BLOCK), 256), np.int64)
    for number in range(len(counts)):
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        order[part] = np.argsort(flat[part], kind="stable")  # uint8: a radix sort, linear
        counts[number] = np.bincount(flat[part], minlength=256)
    return order, counts


def valid(voxels: np.ndarray) -> np.ndarray:
    """Return the drawn voxels of one class, `n 3` int32, from its padded row `n 3`."""
    return voxels[voxels[:, 0] >= 0].astype(np.int32)
