"""Where stations of a stitched scan meet: labels often break there."""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import MismatchError

Array = np.ndarray | jax.Array


def contact(labels: Array, station: Array, num_classes: int) -> Array:
    """Count the voxels of every class that have a face neighbour from another station, (num_classes,).

    Args:
        labels: `x y z`, uint8.
        station: number of the station that each voxel comes from, `x y z`, or of each axial slice, `z`; `IGNORE` or
            negative where there is none, and the border to it is no seam.
    Raises:
        MismatchError: the shapes do not belong together.
    """
    if tuple(station.shape) not in (tuple(labels.shape), tuple(labels.shape[2:])):
        raise MismatchError(
            f"station map of shape {tuple(station.shape)} for labels of shape {tuple(labels.shape)}: "
            "need one number per voxel, or per slice along z."
        )
    traced = isinstance(labels, jax.Array) or isinstance(station, jax.Array)
    xp = jnp if traced else np
    near = xp.broadcast_to(_near_seam(xp.asarray(station), xp), labels.shape)
    if traced:
        counted = jnp.where(near, labels, IGNORE).astype(jnp.int32).reshape(-1)
        return jnp.zeros(256, jnp.int32).at[counted].add(1)[:num_classes]
    return np.bincount(labels[near], minlength=256)[:num_classes]


def _near_seam(station: Array, xp: ModuleType) -> Array:
    """Return whether a neighbour is from another station: bool, of the shape of `station`, or `1 1 z`."""
    station = station.reshape((1, 1, -1)) if station.ndim == 1 else station
    known = (station >= 0) & (station != IGNORE)
    near = xp.zeros(station.shape, bool)
    for axis in range(3):
        a, b = (
            tuple(part if i == axis else slice(None) for i in range(3))
            for part in (slice(None, -1), slice(1, None))
        )
        differ = (station[a] != station[b]) & known[a] & known[b]
        ends = [[(0, 0)] * 3 for _ in range(2)]
        ends[0][axis], ends[1][axis] = (0, 1), (1, 0)
        near = near | xp.pad(differ, ends[0]) | xp.pad(differ, ends[1])
    return near
