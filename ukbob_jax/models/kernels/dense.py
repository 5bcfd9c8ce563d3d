"""3D convolutions with stride 1, for CPUs: 2D convolutions, matrix products and Winograd's form, whichever is the fastest.

Axes: `b` batch, `x y z` voxels, `i` channels in, `o` channels out. A kernel is `kx ky kz i o`. Arrays are float32 or
float64, all of one type.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.models.kernels import winograd

Padding = tuple[tuple[int, int], ...]  # zeros before and after x, y and z
Parts = tuple[jax.Array, ...]  # `b x y z i` each, channels side by side

MANY = 24  # channels from which Winograd's form is the faster one (measured, tools/bench_conv.py)
SMALL = 1024  # voxels up to which one matrix product is


def convolve(parts: Parts, kernel: jax.Array, padding: Padding, outputs: Sequence[int]) -> list[jax.Array]:
    """Correlate.

    Args:
        parts: `b x y z i` each, channels side by side.
        kernel: `kx ky kz i o`.
        padding: zeros before and after each axis.
        outputs: channels of each result; o in all.
    Returns:
        `b x y z o` each.
    """
    window = kernel.shape[:3]
    if not _is_small(parts[0]):
        if _use_winograd(kernel.shape, taps=1):
            return winograd.convolve(parts, kernel, padding, outputs)
        if (planes := _planes(parts, kernel.shape, padding)) and _use_winograd(planes.kernel, taps=1):
            found = winograd.convolve(planes.parts, kernel.reshape(planes.kernel), planes.padding, outputs)
            return [_unfold(y, parts[0].shape) for y in found]
    x = join(parts)
    if _is_small(x):
        y = _neighbourhoods(x, window, padding) @ kernel.reshape(-1, kernel.shape[-1])
    else:
        y = _z_blocked(x, kernel, padding)
    return jnp.split(y, np.cumsum(outputs)[:-1], -1)


def data_gradient(
    dy: jax.Array, kernel: jax.Array, padding: Padding, inputs: Sequence[int]
) -> list[jax.Array]:
    """The gradients of `convolve` by its parts of so many channels, from that by its result, `b x y z o`."""
    # A convolution of dy with the kernel mirrored in space, inputs and outputs exchanged.
    mirrored = jnp.swapaxes(kernel[::-1, ::-1, ::-1], 3, 4)
    reach = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, padding))
    return convolve((dy,), mirrored, reach, inputs)


def weight_gradient(parts: Parts, dy: jax.Array, window: tuple[int, ...], padding: Padding) -> jax.Array:
    """The gradient of `convolve` by its kernel, `kx ky kz i o`, from that by its result, `b x y z o`.

    It is the sum over voxels of every input a window sees times the output's gradient, one slice of x at a time.

    Slice s of the input meets the slices s - kx .. of dy: shifts along y and z widen the input's side of the product
    and shifts along x the other side, so that neither is copied more than a slice's worth at a time.
    """
    inputs, outputs = sum(x.shape[-1] for x in parts), dy.shape[-1]
    shape = (*window, inputs, outputs)
    if not _is_small(parts[0]):
        if _use_winograd(shape, taps=2):
            return winograd.weight_gradient(parts, dy, padding)
        if (planes := _planes(parts, shape, padding)) and _use_winograd(planes.kernel, taps=2):
            found = winograd.weight_gradient(planes.parts, _fold(dy), planes.padding)
            return found.reshape(shape)
    x, depth = join(parts), window[2]
    if _is_small(x):
        seen = _neighbourhoods(x, window, padding)
        product = seen.reshape(-1, seen.shape[-1]).T @ dy.reshape(-1, outputs)
        return product.reshape(*window, inputs, outputs)
    run = min(dy.shape[3], 4 if outputs <= 16 else 2 if outputs <= 32 else 1)  # about 48 columns
    x = jnp.pad(x, ((0, 0), (0, 0), padding[1], padding[2], (0, 0)))
    x = _z_blocks(x, run, depth)  # b x y n (run+kz-1)i
    dy = _pad_to_multiple(dy, run)
    dy = dy.reshape(*dy.shape[:3], x.shape[3], run * outputs)  # b x y n (run o)
    # Output slice u sees input slices u - low .. u - low + kx - 1, so input slice s meets dy slices s + low - p.
    low, high = padding[0]
    dy = jnp.pad(dy, ((0, 0), (window[0] - 1 - low, window[0] - 1 - high), (0, 0), (0, 0), (0, 0)))
    rows, wide = dy.shape[2], x.shape[-1]

    def add_slice(total: jax.Array, s: jax.Array) -> tuple[jax.Array, None]:
        seen = lax.dynamic_index_in_dim(x, s, 1, keepdims=False)  # b y n (run+kz-1)i
        seen = jnp.concatenate([seen[:, q : q + rows] for q in range(window[1])], -1)
        near = lax.dynamic_slice_in_dim(dy, s, window[0], 1)
        near = jnp.concatenate([near[:, window[0] - 1 - p] for p in range(window[0])], -1)
        product = seen.reshape(-1, window[1] * wide).T @ near.reshape(-1, window[0] * run * outputs)
        return total + product, None

    total = jnp.zeros((window[1] * wide, window[0] * run * outputs), x.dtype)
    total, _ = lax.scan(add_slice, total, jnp.arange(x.shape[1]))
    total = total.reshape(window[1], run + depth - 1, inputs, window[0], run, outputs)
    total = jnp.transpose(total, (3, 0, 1, 2, 4, 5))  # kx ky run+kz-1 i run o
    return jnp.asarray(sum(total[:, :, t : t + depth, :, t] for t in range(run)))


def join(parts: Parts) -> jax.Array:
    """The parts as one array."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)


def _z_blocked(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """A stride 1 convolution as one 2D convolution over x and y, two neighbours along z at a time.

    With few channels a convolution cannot fill the vector units. So the outputs of a run along z are computed
    together as `run * o` channels, from the `run + kz - 1` inputs they see as that many times `i` channels. The zeros
    in the widened kernel cost (run + kz - 1) / kz times the arithmetic and return more than that in speed.
    """
    outputs, depth = kernel.shape[-1], kernel.shape[2]
    x = jnp.pad(x, ((0, 0), (0, 0), padding[1], padding[2], (0, 0)))
    length = x.shape[3] - depth + 1  # outputs along z
    run = min(2, length)
    x = _z_blocks(x, run, depth)  # b x y n (run+kz-1)i
    batch, *size, count, wide = x.shape
    # One axis for y and n, neighbours along y being n apart, spares two transpositions.
    x = x.reshape(batch, size[0], size[1] * count, wide)
    y = _of_planes(x, _expand_kernel(kernel, run), (padding[0], (0, 0)), dilation=(1, count))
    return y.reshape(batch, y.shape[1], -1, count * run, outputs)[..., :length, :]


def _is_small(x: jax.Array) -> bool:
    """So few voxels that copying each one's neighbourhood costs little."""
    return x.size <= SMALL * x.shape[-1]


def _use_winograd(kernel: tuple[int, ...], taps: int) -> bool:
    """A kernel with three voxels along each of the first `taps` axes and many channels on either side."""
    return kernel[:taps] == (winograd.TAPS,) * taps and min(kernel[3:]) >= MANY


class _Planes(NamedTuple):
    """A convolution of planes y z, its axes now y, z and one of length 1; x is part of the batch."""

    parts: Parts
    kernel: tuple[int, ...]  # its shape
    padding: Padding


def _planes(parts: Parts, kernel: tuple[int, ...], padding: Padding) -> _Planes | None:
    """The same convolution seen as one of planes, if its kernel has one voxel along x."""
    if kernel[0] != 1 or any(padding[0]):
        return None
    return _Planes(tuple(map(_fold, parts)), (*kernel[1:3], 1, *kernel[3:]), (*padding[1:], (0, 0)))


def _fold(x: jax.Array) -> jax.Array:
    """`b x y z c` to `(b x) y z 1 c`."""
    return x.reshape(-1, *x.shape[2:4], 1, x.shape[4])


def _unfold(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`(b x) y z 1 c` to `b x y z c`, b and x as in `shape`."""
    return x.reshape(*shape[:2], *x.shape[1:3], x.shape[4])


def _of_planes(
    x: jax.Array, kernel: jax.Array, padding: Padding, dilation: tuple[int, int] = (1, 1)
) -> jax.Array:
    """2D convolutions: `b x y i` with `kx ky i o`."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _neighbourhoods(x: jax.Array, window: tuple[int, ...], padding: Padding) -> jax.Array:
    """All a window sees, as channels: `b x y z i` to `b x y z (kx ky kz i)`."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    for axis, k in ((3, window[2]), (2, window[1]), (1, window[0])):  # z first: its channels vary fastest
        length = x.shape[axis] - k + 1
        x = jnp.concatenate([lax.slice_in_dim(x, p, p + length, axis=axis) for p in range(k)], -1)
    return x


def _pad_to_multiple(x: jax.Array, run: int) -> jax.Array:
    """Zeros at the end of z, up to a multiple of `run`."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, -x.shape[3] % run), (0, 0)))


def _z_blocks(x: jax.Array, run: int, depth: int) -> jax.Array:
    """Overlapping runs along z as channels: `b x y z i` to `b x y n (run+kz-1)i`, windows `run` apart."""
    count = -(-(x.shape[3] - depth + 1) // run)
    blocks = -(-(run + depth - 1) // run)  # a window is this many whole blocks, the last cut short
    total = (count + blocks - 1) * run
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, max(0, total - x.shape[3])), (0, 0)))[:, :, :, :total]
    x = x.reshape(*x.shape[:3], count + blocks - 1, run * x.shape[-1])
    inputs = x.shape[-1] // run
    pieces = [x[:, :, :, t : t + count] for t in range(blocks)]
    pieces[-1] = pieces[-1][..., : (run + depth - 1 - (blocks - 1) * run) * inputs]
    return jnp.concatenate(pieces, -1)


def _expand_kernel(kernel: jax.Array, run: int) -> jax.Array:
    """`kx ky kz i o` to `kx ky (run+kz-1)i (run o)`: the kernel shifted by t along z for the t-th output."""
    kx, ky, depth, inputs, outputs = kernel.shape
    shifted = [jnp.pad(kernel, ((0, 0), (0, 0), (t, run - 1 - t), (0, 0), (0, 0))) for t in range(run)]
    return jnp.stack(shifted, 4).reshape(kx, ky, (run + depth - 1) * inputs, run * outputs)
