"""3D convolutions, channels last, that are also fast on a CPU.

XLA's own 3D convolution is the right one on GPU and TPU. On a CPU it is slow, and its weight gradient is slower by
another order of magnitude, so there the same sums are rearranged into 2D convolutions and matrix products that XLA
hands to well blocked kernels (`dense.py`), with many channels also into fewer products (`winograd.py`), with strides in
steps of some planes (`strided.py`). Which form a program uses is decided when it is lowered, by the platform it is lowered
for: a step compiled on a CPU host for a TPU contains the TPU's form.

Axes: `b` batch, `x y z` voxels, `i` channels in, `o` channels out. A kernel is `kx ky kz i o`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.models.kernels import dense, strided, transposed
from ukbob_jax.models.kernels.dense import Padding, Parts, join
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.product import wide_product

Strides = tuple[int, ...]  # voxels x y z

_DIMENSIONS_3D = ("NDHWC", "DHWIO", "NDHWC")


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
    whole: Any = jax.eval_shape(join, parts)
    _check(whole, kernel, padding, groups)
    window, strides = kernel.shape[:3], tuple(int(s) for s in strides)
    zeros = (
        lax.padtype_to_pads(whole.shape[1:4], window, strides, padding)
        if isinstance(padding, str)
        else padding
    )
    pads = tuple((int(a), int(b)) for a, b in zeros)
    if groups > 1:
        return _plain(join(parts), kernel, strides=strides, padding=pads, groups=groups)
    if window == strides and not any(map(any, pads)):
        return _patches(join(parts), kernel)
    return _dense(parts, kernel, strides, pads)


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
        `b X x Y y Z z o` or `b X x Y y o`: every axis times the kernel's. On a CPU, types narrower than float32 are
        summed in float32.
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
    return _transposed(x, kernel)


@jax.custom_vjp
def _transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(x, kernel, cpu=_transposed_cpu, default=_transposed_plain)


def _transposed_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return _transposed(x, kernel), (x, kernel)


def _transposed_backward(residuals: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    def cpu(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        dx, dkernel = transposed.gradients(*map(_widen, (x, kernel, dy)))
        return dx.astype(x.dtype), dkernel.astype(x.dtype)

    def plain(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(_transposed_plain, x, kernel)[1](dy)

    return lax.platform_dependent(*residuals, dy, cpu=cpu, default=plain)


_transposed.defvjp(_transposed_forward, _transposed_backward)


def _transposed_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return transposed.enlarge(_widen(x), _widen(kernel)).astype(x.dtype)


def _transposed_plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(parts: Parts, kernel: jax.Array, strides: Strides, padding: Padding) -> jax.Array:
    """A convolution whose every output sees all channels."""
    return lax.platform_dependent(
        parts,
        kernel,
        cpu=functools.partial(_forward_cpu, strides=strides, padding=padding),
        default=functools.partial(_forward_plain, strides=strides, padding=padding),
    )


def _dense_forward(
    parts: Parts, kernel: jax.Array, strides: Strides, padding: Padding
) -> tuple[jax.Array, tuple]:
    return _dense(parts, kernel, strides, padding), (parts, kernel)


def _dense_backward(
    strides: Strides, padding: Padding, residuals: tuple, dy: jax.Array
) -> tuple[Parts, jax.Array]:
    parts, kernel = residuals
    return lax.platform_dependent(
        parts,
        kernel,
        dy,
        cpu=functools.partial(_backward_cpu, strides=strides, padding=padding),
        default=functools.partial(_backward_plain, strides=strides, padding=padding),
    )


_dense.defvjp(_dense_forward, _dense_backward)


def _forward_plain(parts: Parts, kernel: jax.Array, *, strides: Strides, padding: Padding) -> jax.Array:
    return _plain(join(parts), kernel, strides=strides, padding=padding)


def _backward_plain(
    parts: Parts, kernel: jax.Array, dy: jax.Array, *, strides: Strides, padding: Padding
) -> tuple[Parts, jax.Array]:
    forward = functools.partial(_forward_plain, strides=strides, padding=padding)
    return jax.vjp(forward, parts, kernel)[1](dy)


def _backward_cpu(
    parts: Parts, kernel: jax.Array, dy: jax.Array, *, strides: Strides, padding: Padding
) -> tuple[Parts, jax.Array]:
    if strides != (1, 1, 1):
        return _strided_backward_cpu(parts, kernel, dy, strides, padding)
    wide, dy = tuple(map(_widen, parts)), _widen(dy)
    dx = dense.data_gradient(dy, _widen(kernel), padding, [x.shape[-1] for x in parts])
    dkernel = dense.weight_gradient(wide, dy, kernel.shape[:3], padding)
    return tuple(d.astype(kernel.dtype) for d in dx), dkernel.astype(kernel.dtype)


def _strided_backward_cpu(
    parts: Parts, kernel: jax.Array, dy: jax.Array, strides: Strides, padding: Padding
) -> tuple[Parts, jax.Array]:
    x, dy = _widen(join(parts)), _widen(dy)
    dkernel = strided.weight_gradient(x, dy, kernel.shape[:3], strides, padding)
    dx = strided.data_gradient(dy, _widen(kernel), strides, padding, x.shape[1:4]).astype(parts[0].dtype)
    cuts = np.cumsum([part.shape[-1] for part in parts])[:-1]
    return tuple(jnp.split(dx, cuts, -1)), dkernel.astype(kernel.dtype)


def _forward_cpu(parts: Parts, kernel: jax.Array, *, strides: Strides, padding: Padding) -> jax.Array:
    if strides != (1, 1, 1):
        y = strided.convolve(_widen(join(parts)), _widen(kernel), strides, padding)
        return y.astype(kernel.dtype)
    [y] = dense.convolve(tuple(map(_widen, parts)), _widen(kernel), padding, [kernel.shape[-1]])
    return y.astype(kernel.dtype)


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(at_least_float32(x.dtype))
