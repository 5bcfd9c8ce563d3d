"""3D convolutions with fewer products, for CPUs: Winograd's F(4, 3), four outputs of three taps from six products.

Sums of neighbouring inputs are formed first, multiplied with sums of the kernel's taps, and the products summed again:
half the arithmetic along every axis it is done on (Winograd 1980; Lavin and Gray 2016, arXiv:1509.09308, section 4.3).
Interpolation points 0, 1, -1, 2, -2 and infinity. Rounding grows with the sums: in
float32 several times that of the plain sum, more with two axes than with one.

Four planes of the output are made at a time, which bounds the memory for what is in between.

Axes: `b` batch, `x y z` voxels, `i` channels in, `o` channels out; `n` tiles of four planes, `t` and `u` the six terms of
a tile along x and along y. A kernel is `3 3 3 i o`.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Padding = tuple[tuple[int, int], ...]  # zeros before and after x, y and z

TAPS, TILE = 3, 4
TERMS = TAPS + TILE - 1

# y = OUTPUTS ((KERNEL g) * (INPUTS d)) for six inputs d, three taps g and four outputs y.
INPUTS = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUTS = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Correlate with stride 1: a 2D convolution over y and z for each of the six terms of a tile along x.

    Args:
        x: `b x y z i`, float32 or float64.
        kernel: `3 3 3 i o`.
        padding: zeros before and after each axis.
    Returns:
        `b x y z o`, as many voxels as windows fit.
    """
    length = x.shape[1] + sum(padding[0]) - TAPS + 1
    count = -(-length // TILE)
    x = _pad(x, 1, padding[0][0], count)
    terms = _sums(KERNEL, kernel, 0)  # t ky kz i o
    of_plane = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1), padding=padding[1:], dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip

    def tile(_: None, n: jax.Array) -> tuple[None, jax.Array]:
        planes = _tile(x, n, TERMS)
        products = [of_plane(plane, kernel) for plane, kernel in zip(_sums(INPUTS, planes, 0), terms)]
        return None, _sums(OUTPUTS, products, 1)  # b x y z o

    _, y = lax.scan(tile, None, jnp.arange(count))
    return jnp.moveaxis(y, 0, 1).reshape(x.shape[0], count * TILE, *y.shape[3:])[:, :length]


def weight_gradient(x: jax.Array, dy: jax.Array, padding: Padding) -> jax.Array:
    """The gradient of `convolve` by its kernel, `3 3 3 i o`, from that by its result, `dy` (b x y z o).

    Tiles along x and y, so that 36 products of four planes remain, made together: over all z and tiles along y, of three
    neighbours along z with the gradient.
    """
    length, rows, depth, outputs = dy.shape[1:]
    counts = -(-length // TILE), -(-rows // TILE)
    for axis in (1, 2):
        x = _pad(x, axis, padding[axis - 1][0], counts[axis - 1])
        dy = _pad(dy, axis, 0, counts[axis - 1], reach=0)
    x = jnp.pad(x, ((0, 0),) * 3 + (padding[2], (0, 0)))

    def add_tile(total: jax.Array, n: jax.Array) -> tuple[jax.Array, None]:
        # The barriers keep each sum from being formed anew for all that uses it.
        seen = lax.optimization_barrier(_sums(INPUTS, _tile(x, n, TERMS), 0))  # t b y z i
        seen = [seen[:, :, u : u + TILE * (counts[1] - 1) + 1 : TILE] for u in range(TERMS)]
        seen = lax.optimization_barrier(_sums(INPUTS, seen, 1))  # t u b n z i
        seen = jnp.concatenate([seen[..., r : r + depth, :] for r in range(TAPS)], -1)
        near = lax.optimization_barrier(_sums(OUTPUTS.T, _tile(dy, n, TILE), 0))  # t b y z o
        near = _sums(OUTPUTS.T, [near[:, :, p::TILE] for p in range(TILE)], 1)  # t u b n z o
        seen, near = (a.reshape(TERMS**2, -1, a.shape[-1]) for a in (seen, near))
        return total + jnp.einsum("tki,tko->tio", seen, near), None

    total = jnp.zeros((TERMS**2, TAPS * x.shape[-1], outputs), x.dtype)
    total, _ = lax.scan(add_tile, total, jnp.arange(counts[0]))
    total = total.reshape(TERMS, TERMS, TAPS, -1, outputs)  # t u kz i o
    along_x = _sums(KERNEL.T, total, 0)
    return _sums(KERNEL.T, [along_x[:, u] for u in range(TERMS)], 1)


def _tile(x: jax.Array, n: jax.Array, size: int) -> list[jax.Array]:
    """The planes of a tile, each `b y z c`."""
    planes = lax.dynamic_slice_in_dim(x, n * TILE, size, 1)
    return [planes[:, t] for t in range(size)]


def _pad(x: jax.Array, axis: int, before: int, count: int, reach: int = TAPS - 1) -> jax.Array:
    """Zeros around an axis, so that it holds `count` tiles and `reach` more."""
    after = count * TILE + reach - x.shape[axis] - before
    return jnp.pad(x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)])


def _sums(weights: np.ndarray, terms: Sequence[jax.Array] | jax.Array, axis: int) -> jax.Array:
    """The product of a small matrix with a row of arrays, without the products with 0; the results side by side."""

    def total(row: np.ndarray) -> jax.Array:
        return jnp.asarray(
            sum(x if w == 1 else -x if w == -1 else x * float(w) for w, x in zip(row, terms) if w)
        )

    return jnp.stack([total(row) for row in weights], axis)
