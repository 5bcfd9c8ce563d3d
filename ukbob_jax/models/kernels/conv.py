"""3D convolutions, channels last, that are also fast on a CPU.

XLA's own 3D convolution is the right one on GPU and TPU. On a CPU it is slow, and its weight gradient is slower by
another order of magnitude, so there the same sums are rearranged into 2D convolutions and matrix products that XLA
hands to well blocked kernels, with many channels also into fewer products (`winograd.py`). Which form a program uses
is decided when it is lowered, by the platform it is lowered for: a step compiled on a CPU host for a TPU contains the
TPU's form.

Axes: `b` batch, `x y z` voxels, `i` channels in, `o` channels out. A kernel is `kx ky kz i o`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.models.kernels import winograd
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.product import wide_product

Padding = tuple[tuple[int, int], ...]  # zeros before and after x, y and z
Parts = tuple[jax.Array, ...]  # `b x y z i` each, channels side by side

_DIMENSIONS_3D = ("NDHWC", "DHWIO", "NDHWC")
_DIMENSIONS_2D = ("NHWC", "HWIO", "NHWC")
_MANY = 24  # channels from which Winograd's form is the faster one (measured, tools/bench_conv.py)
_SMALL = 1024  # voxels up to which one matrix product is


def conv3d(
    x: jax.Array | Sequence[jax.Array],
    kernel: jax.Array,
    strides: Sequence[int] = (1, 1, 1),
    padding: str | Padding = "SAME",
    groups: int = 1,
) -> jax.Array:
    """Correlate a batch of volumes with a kernel, as `lax.conv_general_dilated` does, to rounding.

    Args:
        x: `b x y z i`, any float type; or several, whose channels lie side by side without being copied there.
        kernel: `kx ky kz i o`, of the same type; with groups its `i` is that of one group.
        strides: voxels, x y z.
        padding: "SAME" (zeros, so that stride 1 keeps the size), "VALID" (none), or zeros before and after x, y and z.
        groups: runs of channels, each seen by its own run of outputs; i of them are a depthwise convolution.
    Returns:
        `b x y z o`, of the type of `x`. On a CPU, types narrower than float32 are summed in float32.
    Raises:
        ValueError: ranks, channels or types do not fit, or the padding has another name.
    """
    parts = (x,) if isinstance(x, jax.Array) else tuple(x)
    whole: Any = jax.eval_shape(_join, parts)
    _check(whole, kernel, padding, groups)
    window, strides = kernel.shape[:3], tuple(strides)
    zeros = (
        lax.padtype_to_pads(whole.shape[1:4], window, strides, padding)
        if isinstance(padding, str)
        else padding
    )
    pads = tuple((int(a), int(b)) for a, b in zeros)
    if strides == (1, 1, 1) and window != (1, 1, 1) and groups == 1:
        return _dense(parts, kernel, pads)
    x = _join(parts)
    if groups > 1:
        return _plain(x, kernel, strides=strides, padding=pads, groups=groups)
    if window == strides and not any(map(any, pads)):
        return _patches(x, kernel)
    return _plain(x, kernel, strides=strides, padding=pads)


def pointwise(parts: Sequence[jax.Array], kernel: jax.Array, dtype: Any) -> jax.Array:
    """A convolution of one voxel: a matrix product.

    Args:
        parts: `b x y z i` each, channels side by side.
        kernel: `i o`, of the same type.
        dtype: of the result; at least as wide.
    Returns:
        `b x y z o`.
    """
    kernels = jnp.split(kernel, np.cumsum([x.shape[-1] for x in parts])[:-1])
    return functools.reduce(jnp.add, [wide_product(x, k, dtype) for x, k in zip(parts, kernels)])


def conv_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Enlarge a map by a transposed convolution whose stride is its kernel: each voxel becomes a block of the kernel's size.

    `y[b, X x + p, Y y + q, Z z + r, o] = sum_i x[b, x, y, z, i] kernel[p, q, r, i, o]` with X Y Z the kernel's size,
    which is torch's `ConvTranspose3d` with stride = kernel, its weight `i o p q r` transposed to `p q r i o`, not
    flipped. Slices leave out z.

    Args:
        x: `b x y z i` or `b x y i`, any float type.
        kernel: `kx ky kz i o` or `kx ky i o`, of the same type.
    Returns:
        `b X x Y y Z z o` or `b X x Y y o`: every axis times the kernel's.
    Raises:
        ValueError: ranks, channels or types do not fit.
    """
    if x.ndim not in (4, 5) or kernel.ndim != x.ndim or x.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            f"x must be b x y z i and kernel kx ky kz i o, or both without z, got {x.shape} and {kernel.shape}"
        )
    if x.dtype != kernel.dtype:
        raise ValueError(f"x is {x.dtype} and kernel is {kernel.dtype}: cast one to the other's type")
    if x.ndim == 4:
        return conv_transpose(x[:, None], kernel[None])[:, 0]
    batch, *size, inputs = x.shape
    *window, _, outputs = kernel.shape
    kernel = jnp.swapaxes(kernel, 2, 3).reshape(*window[:2], inputs, window[2] * outputs)  # p q i (r o)

    def rows(p: int, q: int) -> jax.Array:
        """`b x y Zz o`: the rows of the result at (p, q) of their blocks, as they lie in memory."""
        return (x.reshape(-1, inputs) @ kernel[p, q]).reshape(batch, *size[:2], window[2] * size[2], outputs)

    # Whole rows move: several times cheaper than moving voxels one by one, in the gradient above all.
    y = jnp.stack([jnp.stack([rows(p, q) for q in range(window[1])], 3) for p in range(window[0])], 2)
    return y.reshape(batch, *(n * k for n, k in zip(size, window)), outputs)  # from b x p y q Zz o


def _check(x: jax.Array, kernel: jax.Array, padding: str | Padding, groups: int = 1) -> None:
    if x.ndim != 5 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[3] * groups:
        raise ValueError(f"x must be b x y z i and kernel kx ky kz i o, got {x.shape} and {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise ValueError(f"x is {x.dtype} and kernel is {kernel.dtype}: cast one to the other's type")
    if isinstance(padding, str) and padding not in ("SAME", "VALID"):
        raise ValueError(f"padding must be 'SAME' or 'VALID', got {padding!r}")


def _plain(
    x: jax.Array, kernel: jax.Array, *, strides: tuple[int, ...], padding: Padding, groups: int = 1
) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=_DIMENSIONS_3D, feature_group_count=groups
    )


def _patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Windows that do not overlap (stride = kernel, no padding): one matrix product."""
    batch, *size, inputs = x.shape
    window, outputs = kernel.shape[:3], kernel.shape[-1]
    counts = [n // k for n, k in zip(size, window)]
    x = x[:, : counts[0] * window[0], : counts[1] * window[1], : counts[2] * window[2]]
    x = x.reshape(batch, counts[0], window[0], counts[1], window[1], counts[2], window[2], inputs)
    x = jnp.transpose(x, (0, 1, 3, 5, 2, 4, 6, 7))  # b x y z kx ky kz i
    return (x.reshape(-1, kernel.size // outputs) @ kernel.reshape(-1, outputs)).reshape(
        batch, *counts, outputs
    )


def _plain_2d(
    x: jax.Array, kernel: jax.Array, padding: Padding, dilation: tuple[int, int] = (1, 1)
) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, rhs_dilation=dilation, dimension_numbers=_DIMENSIONS_2D
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(parts: Parts, kernel: jax.Array, padding: Padding) -> jax.Array:
    """A convolution with stride 1."""
    return lax.platform_dependent(
        parts,
        kernel,
        cpu=functools.partial(_forward_cpu, padding=padding),
        default=functools.partial(_forward_plain, padding=padding),
    )


def _dense_forward(parts: Parts, kernel: jax.Array, padding: Padding) -> tuple[jax.Array, tuple]:
    return _dense(parts, kernel, padding), (parts, kernel)


def _dense_backward(padding: Padding, residuals: tuple, dy: jax.Array) -> tuple[Parts, jax.Array]:
    parts, kernel = residuals
    return lax.platform_dependent(
        parts,
        kernel,
        dy,
        cpu=functools.partial(_backward_cpu, padding=padding),
        default=functools.partial(_backward_plain, padding=padding),
    )


_dense.defvjp(_dense_forward, _dense_backward)


def _join(parts: Parts) -> jax.Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)


def _forward_plain(parts: Parts, kernel: jax.Array, *, padding: Padding) -> jax.Array:
    return _plain(_join(parts), kernel, strides=(1, 1, 1), padding=padding)


def _backward_plain(
    parts: Parts, kernel: jax.Array, dy: jax.Array, *, padding: Padding
) -> tuple[Parts, jax.Array]:
    return jax.vjp(functools.partial(_forward_plain, padding=padding), parts, kernel)[1](dy)


def _backward_cpu(
    parts: Parts, kernel: jax.Array, dy: jax.Array, *, padding: Padding
) -> tuple[Parts, jax.Array]:
    # The data gradient is a convolution of dy with the kernel mirrored in space, inputs and outputs exchanged.
    mirrored = jnp.swapaxes(kernel[::-1, ::-1, ::-1], 3, 4)
    reach = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, padding))
    sizes = [x.shape[-1] for x in parts]
    dx = _convolve_cpu((dy,), mirrored, reach, sizes)
    return tuple(dx), _weight_gradient_cpu(parts, dy, kernel.shape[:3], padding)


def _forward_cpu(parts: Parts, kernel: jax.Array, *, padding: Padding) -> jax.Array:
    return _convolve_cpu(parts, kernel, padding, [kernel.shape[-1]])[0]


def _convolve_cpu(
    parts: Parts, kernel: jax.Array, padding: Padding, outputs: Sequence[int]
) -> list[jax.Array]:
    """The convolution, its channels in results of so many each."""
    dtype, window = parts[0].dtype, kernel.shape[:3]
    parts, kernel = tuple(map(_widen, parts)), _widen(kernel)
    if _use_winograd(kernel.shape) and not _is_small(parts[0]):
        return [y.astype(dtype) for y in winograd.convolve(parts, kernel, padding, outputs)]
    x = _join(parts)
    if _is_small(x):
        y = _neighbourhoods(x, window, padding) @ kernel.reshape(-1, kernel.shape[-1])
    else:
        y = _conv_z_blocked(x, kernel, padding)
    return jnp.split(y.astype(dtype), np.cumsum(outputs)[:-1], -1)


def _conv_z_blocked(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
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
    y = _plain_2d(x, _expand_kernel(kernel, run), (padding[0], (0, 0)), dilation=(1, count))
    return y.reshape(batch, y.shape[1], -1, count * run, outputs)[..., :length, :]


def _weight_gradient_cpu(parts: Parts, dy: jax.Array, window: tuple[int, ...], padding: Padding) -> jax.Array:
    """Sum over voxels of every input a window sees times the output's gradient, one slice of x at a time.

    Slice s of the input meets the slices s - kx .. of dy: shifts along y and z widen the input's side of the product
    and shifts along x the other side, so that neither is copied more than a slice's worth at a time.
    """
    dtype, inputs, outputs = dy.dtype, sum(x.shape[-1] for x in parts), dy.shape[-1]
    parts, dy = tuple(map(_widen, parts)), _widen(dy)
    if _use_winograd((*window, inputs, outputs)) and not _is_small(parts[0]):
        return winograd.weight_gradient(parts, dy, padding).astype(dtype)
    x, depth = _join(parts), window[2]
    if _is_small(x):
        seen = _neighbourhoods(x, window, padding)
        product = seen.reshape(-1, seen.shape[-1]).T @ dy.reshape(-1, outputs)
        return product.reshape(*window, inputs, outputs).astype(dtype)
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
    return jnp.asarray(sum(total[:, :, t : t + depth, :, t] for t in range(run))).astype(dtype)


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(at_least_float32(x.dtype))


def _is_small(x: jax.Array) -> bool:
    """So few voxels that copying each one's neighbourhood costs little."""
    return x.size <= _SMALL * x.shape[-1]


def _use_winograd(kernel: tuple[int, ...]) -> bool:
    """A kernel of 3 x 3 x 3 voxels with many channels on either side."""
    return kernel[:3] == (winograd.TAPS,) * 3 and min(kernel[3:]) >= _MANY


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
