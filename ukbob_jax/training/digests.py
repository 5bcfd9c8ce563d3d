"""A fingerprint of every array of a tree, the same however the arrays are sharded.

Orbax restores a file with a flipped bit without an error; a digest beside the state finds it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ukbob_jax.training.optimizer import path_name


def digests(tree: Any) -> dict[str, str]:
    """Path -> eight hexadecimal digits for every array of `tree`."""
    paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(tree))
    found = jax.device_get([_digest(leaf) for leaf in leaves])
    return {path_name(path): f"{int(value):08x}" for path, value in zip(paths, found)}


@jax.jit
def _digest(x: jax.Array) -> jax.Array:
    """Sum modulo 2**32 of a hash of each element's bits and position.

    The sum does not depend on the order of its terms, hence not on the mesh. A hash is one-to-one in the bits, so
    one changed element always shows; several changed ones go unseen with a chance of 2**-32.
    """
    bits = x.astype(jnp.uint8) if x.dtype == bool else _bits(x)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(_mix(bits.astype(jnp.uint32) ^ _mix(place + jnp.uint32(1))), dtype=jnp.uint32)


def _bits(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))


def _mix(h: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3, a permutation of the 32-bit integers."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
