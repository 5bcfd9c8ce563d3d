"""What becomes of a batch on the device before a network sees it: unpacked, then changed by augmentations."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import mirroring
from ukbob_jax.data import augment
from ukbob_jax.data.training_data import SAME_SPACING
from ukbob_jax.data.unpack import unpack
from ukbob_jax.errors import ConfigError

Batch = dict[str, jax.Array]


def on_device(
    steps: Sequence[str],
    classes: Mapping[int, str],
    spacing_mm: Sequence[float],
    cut: Callable[[jax.Array, Batch], Batch] | None = None,
) -> Callable[[jax.Array, Batch], Batch]:
    """Return (key, packed batch) -> what the network learns from: unpacked, then changed by the augmentations named.

    An affine turns by angles that are true in mm at `spacing_mm`; a rot90 needs the same spacing along x and y. A flip
    exchanges the ids of the two sides; where one side of a pair was not annotated, neither is learnt from, since
    either may be shown as the other. For that reason both count as much as the one whose label counts less.

    Args:
        steps: names in `augment.AUGMENTATIONS`, in order.
        classes: id of training -> name; empty: batches without labels.
        spacing_mm: of a voxel, x y z.
        cut: (key, unpacked batch) -> batch, such as of crops of its crops, each of which is then changed by itself.
    Raises:
        ConfigError: an unknown augmentation, a rot90 of voxels that are not square, or a flip of classes whose sides
            are not known.
    """
    x_mm, y_mm, _ = spacing_mm
    if "rot90" in steps and abs(x_mm - y_mm) > SAME_SPACING * x_mm:
        raise ConfigError(
            f"config.augment: rot90: voxels of {x_mm:.9g} x {y_mm:.9g} mm are not square in x and y. Leave it out."
        )
    own: dict[str, augment.Augmentation] = {
        "affine": functools.partial(augment.affine, spacing_mm=tuple(spacing_mm))
    }
    mirror = None
    if "flip" in steps and classes:
        mirror = mirroring.lookup(dict(classes))
        own["flip"] = functools.partial(augment.flip, mirror=mirror)
    change = augment.compose(*(own.get(step, step) for step in steps)) if steps else None

    def prepare(key: jax.Array, packed: Batch) -> Batch:
        batch = unpack(packed)
        for name, lesser in (("annotated", jnp.logical_and), ("weights", jnp.minimum)):
            if mirror is not None and name in batch:
                k = batch[name].shape[1]  # b k
                partner = np.where(mirror[:k] < k, mirror[:k], np.arange(k))
                batch[name] = lesser(batch[name], batch[name][:, partner])
        if cut is not None:
            cut_key, key = jax.random.split(key)
            batch = cut(cut_key, batch)
        return batch if change is None else change(key, batch)

    return prepare
