"""Matrix products with a wider result, whose gradients multiply in the narrow type again."""

import functools
from typing import Any

import jax
import jax.numpy as jnp


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
    dkernel = jnp.einsum("...i,...o->io", x, dout, preferred_element_type=accumulate)
    return jnp.einsum("...o,io->...i", dout, kernel), dkernel.astype(kernel.dtype)


wide_product.defvjp(_forward, _backward)
