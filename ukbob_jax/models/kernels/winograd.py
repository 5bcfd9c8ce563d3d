"""3D convolutions with fewer products, for CPUs: Winograd's F(4, 3), four outputs of three taps from six products.

Sums of neighbouring inputs are formed first, multiplied with sums of the kernel's taps, and the products summed again:
half the arithmetic along every axis it is done on (Winograd 1980; Lavin and Gray 2016, arXiv:1509.09308, section 4.3).
Interpolation points 0, 1, -1, 2, -2 and infinity. Rounding grows with the sums: in
float32 several times that of the plain sum, more with two axes than with one.

Four planes of the output are made at a time, which bounds the memory for what is in between.

Axes: `b` batch, `x y z` voxels, `i` channels in, `o` channels out; `n` tiles of four planes, `t` and `u` the six terms of
a tile along x and along y. A kernel is `3 ky kz i o`; its gradient is there for `3 3 kz i o`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.models.kernels.buffers import unwritten

Padding = tuple[tuple[int, int], ...]  # zeros before and after x, y and z

TAPS, TILE = 3, 4
TERMS = TAPS + TILE - 1
CACHED = 1_500_000  # numbers that one step of the kernel's gradient holds
MAX_RUN = 4  # tiles of such a step along y; sums of more would mostly be products with 0

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


def convolve(
    parts: Sequence[jax.Array], kernel: jax.Array, padding: Padding, outputs: Sequence[int] = ()
) -> list[jax.Array]:
    """Correlate with stride 1: a 2D convolution over y and z for each of the six terms of a tile along x.

    Args:
        parts: `b x y z i` each, float32 or float64; their channels lie side by side in the kernel.
        kernel: `3 ky kz i o`.
        padding: zeros before and after each axis.
        outputs: how many channels each result has; empty: one result with all.
    Returns:
        `b x y z o` each, as many voxels as windows fit.
    """
    outputs = outputs or (kernel.shape[-1],)
    length, *size = (n + sum(pad) - k + 1 for n, pad, k in zip(parts[0].shape[1:4], padding, kernel.shape))
    room = max(length, TILE)  # planes; the last tile overlaps the one before it where they do not fill it
    starts = np.minimum(np.arange(0, length, TILE), room - TILE)
    parts = [_at_least(x, 1, TERMS) for x in parts]
    windows = _windows(INPUTS, starts - padding[0][0], parts[0].shape[1], kernel.dtype)
    terms = jnp.einsum("tp,pyzio->tyzio", jnp.asarray(KERNEL, kernel.dtype), kernel)
    cuts = np.cumsum([x.shape[-1] for x in parts])[:-1], np.cumsum(outputs)[:-1]
    kernels = [jnp.split(k, cuts[0], 3) for k in jnp.split(terms, cuts[1], 4)]  # result, part of t y z i o

    def tile(n: jax.Array, results: list[jax.Array]) -> list[jax.Array]:
        seen = [_along(windows, n, x, 1) for x in parts]  # b t y z i
        done = []
        for y, of_part in zip(results, kernels):
            products = [
                sum(_of_plane(s[:, t], k[t], padding[1:]) for s, k in zip(seen, of_part))
                for t in range(TERMS)
            ]
            planes = _mixed(jnp.asarray(OUTPUTS, y.dtype), jnp.stack(products, 1), 1)
            done.append(lax.dynamic_update_slice_in_dim(y, planes, jnp.asarray(starts)[n], 1))
        return done

    results = [unwritten((parts[0].shape[0], room, *size, o), kernel) for o in outputs]
    return [y[:, :length] for y in lax.fori_loop(0, len(starts), tile, results)]


def weight_gradient(parts: Sequence[jax.Array], dy: jax.Array, padding: Padding) -> jax.Array:
    """The gradient of `convolve` by its kernel, `3 3 kz i o`, from that by its result, `dy` (b x y z o).

    Tiles along x and y, so that 36 products of four planes remain, each over some tiles along y and all z, of kz
    neighbours along z with the gradient. A step's arrays stay in the cache.
    """
    batch, length, rows, depth, outputs = dy.shape
    tiles = -(-length // TILE), -(-rows // TILE)
    taps = parts[0].shape[3] + sum(padding[2]) - depth + 1  # kz
    wide = taps * max(x.shape[-1] for x in parts) + outputs
    run = min(
        tiles[1], MAX_RUN, max(1, CACHED // (TERMS**2 * batch * depth * wide))
    )  # tiles along y at a time
    steps = TILE * np.arange(tiles[0]), TILE * run * np.arange(-(-tiles[1] // run))
    parts = [_at_least(_at_least(x, 1, TERMS), 2, TILE * run + TAPS - 1) for x in parts]
    dy = _at_least(_at_least(dy, 1, TILE), 2, TILE * run)
    inputs, gradients = _repeated(INPUTS, run), _repeated(OUTPUTS.T, run)  # (u n), rows
    seen_x = _windows(INPUTS, steps[0] - padding[0][0], parts[0].shape[1], dy.dtype)
    seen_y = _windows(inputs, steps[1] - padding[1][0], parts[0].shape[2], dy.dtype)
    near_x = _windows(OUTPUTS.T, steps[0], length, dy.dtype, dy.shape[1])
    near_y = _windows(gradients, steps[1], rows, dy.dtype, dy.shape[2])

    def add_planes(n: jax.Array, totals: list[jax.Array]) -> list[jax.Array]:
        seen = [_along(seen_x, n, x, 1) for x in parts]  # b t y z i
        near = _along(near_x, n, dy, 1)  # b t y z o
        return lax.fori_loop(0, len(steps[1]), functools.partial(add_rows, seen=seen, near=near), totals)

    def add_rows(m: jax.Array, totals: list[jax.Array], seen: list[jax.Array], near: jax.Array) -> list:
        gradient = products(_along(near_y, m, near, 2))
        added = []
        for total, planes in zip(totals, seen):
            part = jnp.pad(_along(seen_y, m, planes, 2), ((0, 0),) * 3 + (padding[2], (0, 0)))
            part = jnp.concatenate([part[..., r : r + depth, :] for r in range(taps)], -1)
            added.append(total + jnp.einsum("tki,tko->tio", products(part), gradient))
        return added

    def products(x: jax.Array) -> jax.Array:
        """`b t (u n) z c` to `(t u) (b n z) c`."""
        x = x.reshape(batch, TERMS, TERMS, run, depth, x.shape[-1])
        return jnp.moveaxis(x, 0, 2).reshape(TERMS**2, -1, x.shape[-1])

    totals = [jnp.zeros((TERMS**2, taps * x.shape[-1], outputs), x.dtype) for x in parts]
    totals = lax.fori_loop(0, tiles[0], add_planes, totals)
    total = jnp.concatenate([t.reshape(TERMS, TERMS, taps, -1, outputs) for t in totals], 3)  # t u kz i o
    weights = jnp.asarray(KERNEL, total.dtype)
    return jnp.einsum("tp,uq,tuzio->pqzio", weights, weights, total, precision="highest")


def _of_plane(plane: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """A 2D convolution: `b y z i` with `ky kz i o`."""
    return lax.conv_general_dilated(
        plane, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _windows(
    weights: np.ndarray, starts: np.ndarray, length: int, dtype: Any, room: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Where to read what `weights` (out in) mix from every start on, and the matrices, `n out in`, for what is read there.

    Reading stays within `room` (by default `length`) entries; what lies outside of the first `length` is 0.
    """
    reach = weights.shape[1]
    first = np.clip(starts, 0, max(room, length) - reach)
    mix = np.zeros((len(starts), *weights.shape))
    for n, (start, begin) in enumerate(zip(starts, first)):
        for p in range(reach):
            if 0 <= start + p < length:
                mix[n, :, start + p - begin] = weights[:, p]
    return jnp.asarray(first, jnp.int32), jnp.asarray(mix, dtype)


def _repeated(weights: np.ndarray, run: int) -> np.ndarray:
    """The matrix that forms the sums of `run` tiles, four entries apart: `(out n) in`."""
    out, reach = weights.shape
    wide = np.zeros((out, run, TILE * (run - 1) + reach))
    for n in range(run):
        wide[:, n, TILE * n : TILE * n + reach] = weights
    return wide.reshape(out * run, -1)


def _along(windows: tuple[jax.Array, jax.Array], n: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """The sums of window `n` along an axis, in its place."""
    first, mix = windows
    return _mixed(mix[n], lax.dynamic_slice_in_dim(x, first[n], mix.shape[2], axis), axis)


def _mixed(weights: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """The product of a small matrix with an axis of `x`, as a matrix product over all that lies behind."""
    lead, behind = x.shape[:axis], x.shape[axis + 1 :]
    matrices = jnp.broadcast_to(weights, (*lead, *weights.shape))
    return jnp.matmul(matrices, x.reshape(*lead, x.shape[axis], -1)).reshape(*lead, -1, *behind)


def _at_least(x: jax.Array, axis: int, length: int) -> jax.Array:
    """`x` with zeros appended, so that an axis has so many entries."""
    missing = max(0, length - x.shape[axis])
    return jnp.pad(x, [(0, missing if a == axis else 0) for a in range(x.ndim)]) if missing else x
