"""Where loops write their results, and what blocks keep for the backward pass."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name


def unwritten(shape: Sequence[int], like: jax.Array) -> jax.Array:
    """An array, of the type of `like`, every entry of which a loop will write over.

    It is filled with an entry of `like`, so that each loop has its own. On CPUs `lax.empty` gives zeros, and XLA takes
    zeros of one shape for one array: it keeps that for as long as any loop needs it and copies it for each.
    """
    return jnp.broadcast_to(lax.stop_gradient(like).reshape(-1)[0], tuple(shape))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def keep(x: jax.Array, name: str) -> jax.Array:
    """`x` under a name for policies of `jax.checkpoint`, which is kept as the integers of the same bits.

    JAX rounds floating-point numbers that it keeps to their own type, for a fault of other programs. XLA takes that for
    work: on a CPU the map lies in memory twice, rounded and not.
    """
    return _as_bits(x, name)


@keep.defjvp
def _keep_jvp(name: str, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return _as_bits(primals[0], name), tangents[0]  # a call of `keep` would hide the name from policies


def _as_bits(x: jax.Array, name: str) -> jax.Array:
    bits = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[x.dtype.itemsize]
    kept = checkpoint_name(lax.bitcast_convert_type(x, bits), name)
    return lax.bitcast_convert_type(kept, x.dtype)
