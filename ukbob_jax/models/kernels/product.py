"""Matrix products with a wider result, whose gradients multiply in the narrow type again."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

ROWS = 4096  # of one block on a CPU
MANY = 8 * ROWS


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def wide_product(x: jax.Array, kernel: jax.Array, accumulate: Any) -> jax.Array:
    """`x` (... i) times `kernel` (i o), both of one float type, as ... o of type `accumulate`.

    Its cotangent has the wide type too, and automatic gradients would multiply in that: on a GPU at half of bfloat16's
    speed at best. Here it is rounded to the type of `x` first; sums keep the wide type.
    """
    return jnp.einsum("...i,io->...o", x, kernel, preferred_element_type=accumulate)


def _forward(
    x: jax.Array, kernel: jax.Array, accumulate: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return wide_product(x, kernel, accumulate), (x, kernel)


def _backward(
    accumulate: Any, residuals: tuple[jax.Array, jax.Array], dout: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    dout = dout.astype(x.dtype)
    dkernel = lax.platform_dependent(
        x.reshape(-1, x.shape[-1]),
        dout.reshape(-1, dout.shape[-1]),
        cpu=functools.partial(_in_blocks, accumulate=accumulate),
        default=functools.partial(_at_once, accumulate=accumulate),
    )
    return jnp.einsum("...o,io->...i", dout, kernel), dkernel.astype(kernel.dtype)


def _at_once(x: jax.Array, dout: jax.Array, accumulate: Any) -> jax.Array:
    """The sum over rows of `x` (v i) times `dout` (v o): i o."""
    return jnp.einsum("vi,vo->io", x, dout, preferred_element_type=accumulate)


def _in_blocks(x: jax.Array, dout: jax.Array, accumulate: Any) -> jax.Array:
    """As `_at_once`, some rows at a time: XLA turns `x` round first, which is slow on a CPU outside of its cache."""

    def add(n: jax.Array, total: jax.Array) -> jax.Array:
        seen, above = (lax.dynamic_slice_in_dim(a, n * ROWS, ROWS) for a in (x, dout))
        return total + _at_once(seen, above, accumulate)

    if len(x) < MANY:
        return _at_once(x, dout, accumulate)
    blocks, total = len(x) // ROWS, jnp.zeros((x.shape[1], dout.shape[1]), accumulate)
    total = lax.fori_loop(0, blocks, add, total)
    return total + _at_once(x[blocks * ROWS :], dout[blocks * ROWS :], accumulate) if len(x) % ROWS else total


wide_product.defvjp(_forward, _backward)
