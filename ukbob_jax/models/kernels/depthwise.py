"""Depthwise convolutions, channels last, in two or three dimensions: every channel has a kernel of its own.

XLA's own form is the right one on GPU and TPU. On a CPU it goes through memory once per channel; there the same sums are
shifted copies times one number per channel, which XLA fuses into one pass, and steps of two voxels are taken apart into
the even and odd voxels of each axis. Which form a program uses is decided when it is lowered, as in `conv.py`.

Axes: `b` batch, `v` voxels along two or three axes, `c` channels, `u` voxels of the kernel's window.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.models.kernels.dtypes import at_least_float32

Padding = tuple[tuple[int, int], ...]  # zeros before and after each axis of voxels

UNROLLED = 27  # places of a window that one pass over memory sums; of larger windows a slice at a time

_DIMENSIONS = {4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}


def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """`y[b, v, c] = sum_u x[b, stride v + u - k // 2, c] kernel[u, c]`, zeros around; k is the window's width.

    Args:
        x: `b v c`, any float type.
        kernel: `u c`, of the same type, odd along each axis.
        stride: voxels along each axis, 1 or 2.
    Returns:
        `b v c`, an axis of n voxels being `ceil(n / stride)` long, of the type of `x`. On a CPU, types narrower than
        float32 are summed in float32.
    Raises:
        ValueError: ranks, channels, types, width or stride do not fit.
    """
    _check(x, kernel)
    if stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2, got {stride}")
    return _by_platform(_strided if stride == 2 else _kept, functools.partial(_plain, stride=stride))(
        x, kernel
    )


def depthwise_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Adds up what each voxel spreads over twice the size: torch's `ConvTranspose` with stride 2 and padding k // 2.

    `y[b, w, c]` is the sum of `x[b, v, c] kernel[u, c]` over all v and u with `2 v + u = w + k // 2`.

    Args:
        x: `b v c`, any float type.
        kernel: `u c`, of the same type, odd along each axis, not mirrored.
    Returns:
        `b w c`, an axis of n voxels being `2 n - 1` long; type as for `depthwise`.
    Raises:
        ValueError: ranks, channels, types or width do not fit.
    """
    _check(x, kernel)
    return _by_platform(_spread, _plain_transpose)(x, kernel)


def _check(x: jax.Array, kernel: jax.Array) -> None:
    if x.ndim not in _DIMENSIONS or kernel.ndim != x.ndim - 1 or x.shape[-1] != kernel.shape[-1]:
        raise ValueError(
            f"x must be b v c and kernel u c, in 2 or 3 dimensions, got {x.shape} and {kernel.shape}"
        )
    if x.dtype != kernel.dtype:
        raise ValueError(f"x is {x.dtype} and kernel is {kernel.dtype}: cast one to the other's type")
    if not all(width % 2 for width in kernel.shape[:-1]):
        raise ValueError(f"the kernel must be odd along each axis, got {kernel.shape[:-1]}")


def _by_platform(cpu: Callable[..., jax.Array], plain: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function (x, kernel) that lowers, and whose gradient lowers, to one of two forms."""

    @jax.custom_vjp
    def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.platform_dependent(x, kernel, cpu=cpu, default=plain)

    def backward(inputs: tuple[jax.Array, jax.Array], dy: jax.Array) -> Any:
        def gradient(form: Callable[..., jax.Array]) -> Callable[..., Any]:
            return lambda x, kernel, dy: jax.vjp(form, x, kernel)[1](dy)

        return lax.platform_dependent(*inputs, dy, cpu=gradient(cpu), default=gradient(plain))

    run.defvjp(lambda x, kernel: (run(x, kernel), (x, kernel)), backward)
    return run


def _plain(x: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
    pads = tuple((k // 2, k // 2) for k in kernel.shape[:-1])
    return _convolve(x, kernel, strides=(stride,) * len(pads), padding=pads)


def _plain_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    pads = tuple((k // 2, k // 2) for k in kernel.shape[:-1])
    return _convolve(x, _mirrored(kernel), padding=pads, dilation=(2,) * len(pads))


def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    padding: Padding,
    strides: tuple[int, ...] = (),
    dilation: tuple[int, ...] = (),
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        jnp.expand_dims(kernel, -2),
        strides or (1,) * len(padding),
        padding,
        lhs_dilation=dilation or None,
        dimension_numbers=_DIMENSIONS[x.ndim],
        feature_group_count=x.shape[-1],
    )


def _kept(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _correlate(x, kernel, tuple((k // 2, k // 2) for k in kernel.shape[:-1]))


def _strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Every other voxel: even and odd voxels meet every other number of the kernel each."""
    total: Any = jnp.zeros((), x.dtype)
    for odd in itertools.product((0, 1), repeat=x.ndim - 2):
        part, numbers, pads = x, kernel, []
        for axis, (k, r) in enumerate(zip(kernel.shape, odd)):
            n = x.shape[axis + 1]
            part = lax.slice_in_dim(part, min(r, n), n, 2, axis + 1)
            numbers = lax.slice_in_dim(numbers, min((k // 2 + r) % 2, k), k, 2, axis)
            low = (k // 2 + r) // 2  # numbers that meet voxels before the output's own
            wanted = -(-n // 2) + numbers.shape[axis] - 1
            pads.append((low, wanted - low - part.shape[axis + 1]))
        if numbers.size and part.size:
            total = total + _correlate(part, numbers, tuple(pads))
    return total


def _spread(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Even and odd voxels of the result, each from every other number of the kernel; then interleaved."""
    rank = x.ndim - 2

    def phase(odd: tuple[int, ...]) -> jax.Array:  # b v c: voxels 2 v + odd
        numbers, pads = kernel, []
        for axis, (k, q) in enumerate(zip(kernel.shape, odd)):
            first = (q + k // 2) % 2
            numbers = lax.slice_in_dim(numbers, min(first, k), k, 2, axis)
            later = (q + k // 2 - first) // 2
            pads.append((numbers.shape[axis] - 1 - later, later))
        if not numbers.size:  # a kernel one voxel wide reaches the even voxels only
            return jnp.zeros_like(x)
        return _correlate(x, _mirrored(numbers), tuple(pads))

    parts = [phase(odd) for odd in itertools.product((0, 1), repeat=rank)]
    for axis in range(rank, 0, -1):  # the last axis varies fastest among the parts
        pairs = [jnp.stack(pair, axis + 1) for pair in zip(parts[::2], parts[1::2])]
        parts = [pair.reshape(*pair.shape[:axis], -1, *pair.shape[axis + 2 :]) for pair in pairs]
    return parts[0][(slice(None), *(slice(2 * n - 1) for n in x.shape[1:-1]))]


def _mirrored(kernel: jax.Array) -> jax.Array:
    return jnp.flip(kernel, tuple(range(kernel.ndim - 1)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _correlate(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """`y[b, v, c] = sum_u x[b, v + u - low, c] kernel[u, c]`; a window of any width."""
    padded, window = _padded(x, padding), kernel.shape[:-1]
    size = tuple(n - k + 1 for n, k in zip(padded.shape[1:], window))
    kernel = kernel.astype(padded.dtype)
    if math.prod(window) <= UNROLLED:
        return _sum_of_shifts(padded, kernel, size).astype(x.dtype)

    def add_slice(i: jax.Array, total: jax.Array) -> jax.Array:
        part = lax.dynamic_slice_in_dim(padded, i, size[0], 1)
        return total + _sum_of_shifts(part, lax.dynamic_slice_in_dim(kernel, i, 1), size)

    total = jnp.zeros((x.shape[0], *size, x.shape[-1]), padded.dtype)
    return lax.fori_loop(0, window[0], add_slice, total).astype(x.dtype)


def _correlate_forward(x: jax.Array, kernel: jax.Array, padding: Padding) -> tuple[jax.Array, tuple]:
    return _correlate(x, kernel, padding), (x, kernel)


def _correlate_backward(padding: Padding, inputs: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    reach = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, padding))
    dx: Any = _correlate(dy, _mirrored(kernel), reach)
    padded, dy = _padded(x, padding), dy.astype(at_least_float32(dy.dtype))
    over, starts = (
        tuple(range(dy.ndim - 1)),
        np.indices(kernel.shape[:-1]).reshape(dy.ndim - 2, -1).T,
    )  # u, 2 or 3

    def product(start: jax.Array) -> jax.Array:  # one after the other: all at once take seconds to compile
        zero = jnp.zeros((), start.dtype)
        return (lax.dynamic_slice(padded, (zero, *start, zero), dy.shape) * dy).sum(over)

    sums = lax.map(product, jnp.asarray(starts, jnp.int32))
    return dx, sums.reshape(kernel.shape).astype(kernel.dtype)


_correlate.defvjp(_correlate_forward, _correlate_backward)


def _padded(x: jax.Array, padding: Padding) -> jax.Array:
    return jnp.pad(x.astype(at_least_float32(x.dtype)), ((0, 0), *padding, (0, 0)))


def _sum_of_shifts(x: jax.Array, kernel: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """`x` (b v c) at each place of the window, `size` voxels, times that place's numbers; one pass over memory."""

    def term(start: tuple[int, ...]) -> jax.Array:
        seen = x[(slice(None), *(slice(a, a + n) for a, n in zip(start, size)))]
        return seen * kernel[start].reshape((1,) * (x.ndim - 1) + (-1,))

    return functools.reduce(jnp.add, map(term, np.ndindex(kernel.shape[:-1])))
