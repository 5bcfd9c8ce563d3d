"""Normalisation with what usually follows it, scale, bias, residual and leaky ReLU, as one function with its own gradient.

Derived automatically, the gradient would keep several maps per normalisation and pass over memory many times. Written out
it keeps the input, and the output where a residual was added; everything else is computed again from these.

Axes: `b` batch, `x y z` voxels, `c` channels.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from ukbob_jax.models.kernels.dtypes import at_least_float32

EPSILON = 1e-5  # of a normalisation that says nothing else, as in PyTorch
STATISTICS = "statistics"  # name of mean and 1 / standard deviation, for policies of `jax.checkpoint`

Axes = tuple[int, ...]


def normalize(
    x: jax.Array,
    axes: Axes,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    residual: jax.Array | None = None,
    slope: float = 1.0,
    epsilon: float = EPSILON,
) -> jax.Array:
    """`leaky_relu((x - mean) / std * scale + bias + residual)`, mean and standard deviation (biased) over `axes`.

    Args:
        x: any float type; the arithmetic is at least float32.
        axes: over which mean and standard deviation are taken.
        scale, bias: of each channel, the last axis; both or neither.
        residual: of the shape and type of `x`.
        slope: of the leaky ReLU below 0, more than 0; 1 leaves it out.
        epsilon: added to the variance.
    Returns:
        As `x`.
    """
    mean, rstd = _statistics(x.astype(at_least_float32(x.dtype)), axes, epsilon)
    return _apply(axes, slope, x, lax.stop_gradient(mean), lax.stop_gradient(rstd), scale, bias, residual)


def _statistics(x: jax.Array, axes: Axes, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Mean and 1 / standard deviation over `axes`, which stay with length 1."""
    mean = x.mean(axes, keepdims=True)
    variance = jnp.square(x - mean).mean(axes, keepdims=True)
    return checkpoint_name(mean, STATISTICS), checkpoint_name(lax.rsqrt(variance + epsilon), STATISTICS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _apply(
    axes: Axes,
    slope: float,
    x: jax.Array,
    mean: jax.Array,
    rstd: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    residual: jax.Array | None,
) -> jax.Array:
    normal = (x.astype(mean.dtype) - mean) * rstd
    return shift_and_activate(normal, scale, bias, residual, slope).astype(x.dtype)


def _forward(axes: Axes, slope: float, *inputs: Any) -> tuple[Any, tuple]:
    y = _apply(axes, slope, *inputs)
    *others, residual = inputs
    # Without a residual the sign follows from x; with one it is that of the result, which its reader keeps anyway.
    return y, (*others, None if residual is None or slope == 1 else y, residual is not None)


def _backward(axes: Axes, slope: float, kept: tuple, dy: jax.Array) -> tuple[jax.Array | None, ...]:
    x, mean, rstd, scale, bias, y, had_residual = kept
    count = x.size // mean.size
    normal = (x.astype(mean.dtype) - mean) * rstd
    dy = dy.astype(mean.dtype)
    if slope != 1:
        dy = jnp.where((_affine(normal, scale, bias) if y is None else y) > 0, dy, slope * dy)
    dresidual = dy.astype(x.dtype) if had_residual else None
    over = tuple(range(x.ndim - 1))
    dscale = dbias = None
    if scale is not None and set(axes) == set(over[1:]):
        # The sums that the input's gradient needs are those of scale and bias, scan by scan.
        along, total = (dy * normal).sum(axes, keepdims=True), dy.sum(axes, keepdims=True)
        dscale, dbias = along.sum(over).astype(scale.dtype), total.sum(over).astype(scale.dtype)
        dx = (
            rstd
            * broadcast_channels(scale.astype(dy.dtype), dy.ndim)
            * (dy - (total + normal * along) / count)
        )
    else:
        if scale is not None:
            dscale, dbias = (dy * normal).sum(over).astype(scale.dtype), dy.sum(over).astype(scale.dtype)
            dy = dy * broadcast_channels(scale.astype(dy.dtype), dy.ndim)
        along, total = (dy * normal).sum(axes, keepdims=True), dy.sum(axes, keepdims=True)
        dx = rstd * (dy - (total + normal * along) / count)
    return dx.astype(x.dtype), None, None, dscale, dbias, dresidual


_apply.defvjp(_forward, _backward)


def shift_and_activate(
    x: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    residual: jax.Array | None = None,
    slope: float = 1.0,
) -> jax.Array:
    """`leaky_relu(x * scale + bias + residual)`, of the type of `x`; arguments as of `normalize`."""
    y = _affine(x, scale, bias)
    if residual is not None:
        y = y + residual.astype(y.dtype)
    return y if slope == 1 else jnp.where(y > 0, y, slope * y)


def _affine(x: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    if scale is None or bias is None:
        return x
    scale, bias = (broadcast_channels(values.astype(x.dtype), x.ndim) for values in (scale, bias))
    return x * scale + bias


def broadcast_channels(values: jax.Array, ndim: int) -> jax.Array:
    """A vector over channels, shaped to meet an array with `ndim` axes, channels last."""
    return values.reshape((1,) * (ndim - 1) + (-1,))
