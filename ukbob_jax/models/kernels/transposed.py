"""Transposed convolutions whose stride is their kernel, for CPUs: a matrix product of some planes at a time.

Nothing as large as the result is held beside it.

Axes: `b` batch, `x y z` voxels, `i` channels in, `o` channels out. A kernel is `p q r i o`: voxel x becomes p voxels, y q
and z r. Rows of the result, `(z r) o`, move whole.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ukbob_jax.models.kernels.buffers import unwritten

ROWS = 4096  # voxels, from which a matrix product has enough to do


def enlarge(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`b x y z i` to `b (x p) (y q) (z r) o`, both arrays of one type, float32 or float64."""
    batch, *size, _ = x.shape
    *window, _, outputs = kernel.shape
    run, matrix = _planes_at_a_time(batch, size), _matrix(kernel)
    p, q, row = window[0], window[1], size[2] * window[2] * outputs

    def planes(n: jax.Array, y: jax.Array) -> jax.Array:
        first = jnp.minimum(n * run, size[0] - run)  # the last ones overlap those before
        blocks = lax.dynamic_slice_in_dim(x, first, run, 1).reshape(-1, matrix.shape[0]) @ matrix
        blocks = blocks.reshape(batch * run, size[1], size[2], p, q, -1)  # b x y z p q (r o)
        rows = jnp.transpose(blocks, (0, 3, 1, 4, 2, 5)).reshape(batch, run * p, size[1] * q, row)
        return lax.dynamic_update_slice_in_dim(y, rows, first * p, 1)

    y = unwritten((batch, size[0] * p, size[1] * q, row), matrix)
    y = lax.fori_loop(0, -(-size[0] // run), planes, y)
    return y.reshape(*y.shape[:3], size[2] * window[2], outputs)


def gradients(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients by `x` and `kernel` from that by the result, all of one type."""
    batch, *size, inputs = x.shape
    *window, _, outputs = kernel.shape
    run, matrix = _planes_at_a_time(batch, size), _matrix(kernel)
    p, q = window[:2]
    dy = dy.reshape(*dy.shape[:3], -1)  # rows

    def planes(n: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dx, dmatrix = found
        first = jnp.minimum(n * run, size[0] - run)
        near = lax.dynamic_slice_in_dim(dy, first * p, run * p, 1)
        near = near.reshape(batch * run, p, size[1], q, size[2], window[2] * outputs)
        near = jnp.transpose(near, (0, 2, 4, 1, 3, 5)).reshape(-1, matrix.shape[1])  # (b x y z) (p q r o)
        part = (near @ matrix.T).reshape(batch, run, *size[1:], inputs)
        seen = lax.dynamic_slice_in_dim(x, first, run, 1)
        fresh = first + jnp.arange(run) >= n * run  # planes that no step before has added
        seen = jnp.where(fresh[:, None, None, None], seen, 0).reshape(-1, inputs)
        return lax.dynamic_update_slice_in_dim(dx, part, first, 1), dmatrix + seen.T @ near

    found = unwritten(x.shape, matrix), jnp.zeros(matrix.shape, x.dtype)
    dx, dmatrix = lax.fori_loop(0, -(-size[0] // run), planes, found)
    dkernel = jnp.moveaxis(dmatrix.reshape(inputs, *window, outputs), 0, 3)
    return dx, dkernel


def _planes_at_a_time(batch: int, size: list[int]) -> int:
    return min(size[0], -(-ROWS // (batch * size[1] * size[2])))


def _matrix(kernel: jax.Array) -> jax.Array:
    """`i (p q r o)`."""
    return jnp.moveaxis(kernel, 3, 0).reshape(kernel.shape[3], -1)
