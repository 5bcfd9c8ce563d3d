"""Voxel maps of what networks do not know, and their means over boxes.

Natural logarithm; 0 log 0 = 0. Axes: m members (networks, or draws of dropout), k classes, x y z voxels.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def entropy(p: jax.Array, axis: int = 0) -> jax.Array:
    """Entropy of probabilities along an axis, nats."""
    p = jnp.asarray(p)
    return jnp.maximum(-(p * jnp.log(jnp.where(p > 0, p, 1))).sum(axis), 0)


def predictive_entropy(probs: jax.Array) -> jax.Array:
    """Entropy of the mean over members: all that is uncertain; `m k x y z` -> `x y z`."""
    return entropy(jnp.mean(probs, 0))


def expected_entropy(probs: jax.Array) -> jax.Array:
    """Mean over members of their entropies: what each finds uncertain; `m k x y z` -> `x y z`."""
    return jnp.mean(entropy(probs, 1), 0)


def mutual_information(probs: jax.Array) -> jax.Array:
    """How much members disagree (Houlsby et al. 2011): predictive less expected entropy; `m k x y z` -> `x y z`."""
    return jnp.maximum(predictive_entropy(probs) - expected_entropy(probs), 0)


def class_entropy(mean: jax.Array) -> jax.Array:
    """Entropy times the probability of each class, as ClaSP scores classes; mean over members `k x y z` -> `k x y z`."""
    return entropy(mean)[None] * mean


@functools.partial(jax.jit, static_argnames=("size", "stride"))
def box_mean(values: jax.Array, size: tuple[int, int, int], stride: int = 1) -> jax.Array:
    """Mean over every box that lies within the volume.

    Args:
        values: `x y z`.
        size: of the box, voxels, at most the volume's.
        stride: voxels from one box to the next.
    Returns:
        One mean per box, by its lowest corner: ceil((side of the volume - side of the box + 1) / stride) along each axis.
    """
    total = jnp.asarray(values, jnp.promote_types(values.dtype, jnp.float32))
    for axis, side in enumerate(size):  # one axis after the other: the sum of the sides, not their product
        window, step = [1, 1, 1], [1, 1, 1]
        window[axis], step[axis] = side, stride
        total = lax.reduce_window(total, jnp.zeros((), total.dtype), lax.add, window, step, "VALID") / side
    return total


def cut_to(size: Sequence[int], shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the sides of a patch, at most those of the scan; voxels x y z."""
    x, y, z = (min(int(side), int(length)) for side, length in zip(size, shape))
    return x, y, z
