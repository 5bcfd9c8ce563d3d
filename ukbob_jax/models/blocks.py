"""The parts that networks are built from: convolutions, normalisation, residual blocks.

Axes: b batch, x y z voxels, c channels. Parameters are float32; `dtype` is that of the arithmetic; statistics are
float32 at least.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.models.activations import SLOPE
from ukbob_jax.models.architecture import Size
from ukbob_jax.models.kernels.attention import ATTENDED
from ukbob_jax.models.kernels.buffers import keep
from ukbob_jax.models.kernels.conv import conv3d, conv_transpose, pointwise
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.norm import (
    EPSILON,
    STATISTICS,
    broadcast_channels,
    normalize,
    shift_and_activate,
)

NORMS = ("instance", "instance_affine", "batch", "group", "layer")
MAPS = "maps"  # name of what convolutions give, for policies of `jax.checkpoint`
# What blocks keep for the backward pass. The rest costs little to compute again: normalised and activated maps, and all of
# a Swin block but its attention, whose layers are small beside the convolutions.
KEEP_MAPS = jax.checkpoint_policies.save_only_these_names(MAPS, STATISTICS, ATTENDED)
BATCH_MOMENTUM = 0.1  # weight of the new statistics, PyTorch's convention


def kernel_init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform within 1 / sqrt(inputs per output), PyTorch's default for linear layers and convolutions.

    Drawn flat: XLA takes seconds to compile a draw with five axes on CPU.
    """
    return uniform(math.prod(shape[:-1]) ** -0.5)(key, shape, dtype)


def uniform(bound: float) -> Callable[..., jax.Array]:
    """Return what draws (key, shape, dtype) from -bound to bound."""

    def draw(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return draw


def per_axis(value: int | Size, rank: int) -> Size:
    """One number for each of `rank` axes."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


class Dropout(nn.Module):
    """Zeroes a share `rate` of the values, channels or samples of a batch, and scales up the rest (rng "dropout")."""

    rate: float
    whole_samples: bool = False
    whole_channels: bool = False  # of each sample

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`x` (b ... c); unchanged without `train`."""
        if not train or self.rate == 0:
            return x
        shape = x.shape
        if self.whole_samples or self.whole_channels:
            shape = (len(x), *(1,) * (x.ndim - 2), x.shape[-1] if self.whole_channels else 1)
        keep = jax.random.bernoulli(
            self.make_rng("dropout"), 1 - self.rate, (math.prod(shape),)
        )  # flat, see above
        return jnp.where(keep.reshape(shape), x / max(1 - self.rate, EPSILON), 0).astype(x.dtype)


class Norm(nn.Module):
    """One of the normalisations of convolutional features, or LayerNorm on tokens.

    kind: "instance" over x y z, no parameters; "instance_affine" the same with scale and bias; "batch" over b x y z
    with running statistics in the collection `batch_stats`; "group" over x y z and each of `groups` runs of channels;
    "layer" over the channels of each voxel.
    """

    kind: str
    groups: int = 4
    affine: bool = True
    dtype: Any = jnp.float32
    epsilon: float = EPSILON  # added to the variance
    scale_init: Callable[..., jax.Array] = nn.initializers.ones

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        residual: jax.Array | None = None,
        slope: float = 1.0,
    ) -> jax.Array:
        """`x` (b ... c), normalised, then `residual` added, then a leaky ReLU of this slope (1: none).

        `train` takes and updates the batch's own statistics in "batch".
        """
        channels, space = x.shape[-1], tuple(range(1, x.ndim - 1))
        y = x.astype(jnp.promote_types(x.dtype, self.dtype))
        scale = bias = None
        if self.affine and self.kind != "instance":
            scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        if self.kind == "batch" and not train:
            y = self._running(y)
        elif self.kind == "group":
            y = y.astype(at_least_float32(y.dtype))  # until scale and bias are applied
            grouped = y.reshape(*y.shape[:-1], self.groups, channels // self.groups)
            y = normalize(grouped, (*space, x.ndim), epsilon=self.epsilon).reshape(x.shape)
        else:
            if self.kind == "batch":
                self._update(y.astype(at_least_float32(y.dtype)))
            axes = {"batch": (0, *space), "layer": (x.ndim - 1,)}.get(self.kind, space)
            return normalize(y, axes, scale, bias, residual, slope, self.epsilon).astype(self.dtype)
        return shift_and_activate(y, scale, bias, residual, slope).astype(self.dtype)

    def _running(self, x: jax.Array) -> jax.Array:
        """`x` less the running mean, divided by the running standard deviation."""
        mean, var, _ = self._statistics(x.shape[-1])
        x = x.astype(at_least_float32(x.dtype)) - broadcast_channels(mean.value, x.ndim)
        return x * broadcast_channels(jax.lax.rsqrt(var.value.astype(x.dtype) + self.epsilon), x.ndim)

    def _update(self, x: jax.Array) -> None:
        """Move the running statistics towards those of a batch."""
        channels, axes = x.shape[-1], tuple(range(x.ndim - 1))
        mean, var, count = self._statistics(channels)
        if self.is_initializing():
            return
        total = x.size // channels
        unbiased = x.var(axes) * total / max(total - 1, 1)
        for running, new in ((mean, x.mean(axes)), (var, unbiased)):
            step = BATCH_MOMENTUM * (new - running.value)
            running.value = (running.value + step).astype(jnp.float32)
        count.value = count.value + 1

    def _statistics(self, channels: int) -> tuple[nn.Variable, nn.Variable, nn.Variable]:
        return (
            self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32),
            self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32),
            self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32),
        )


class Conv(nn.Module):
    """Convolution with an odd kernel and zeros around, so that stride 1 keeps the size, as PyTorch's with padding k // 2.

    A kernel of one voxel is a matrix product. With stride s an axis of n voxels becomes one of (n - 1) // s + 1. Slices,
    b x y c, have kernels and strides of two numbers.
    """

    features: int
    size: int | Size = 3  # voxels, x y z or the same for all
    strides: int | Size = 1
    groups: int = 1  # runs of channels, each seen by its own run of features
    bias: bool = False
    dtype: Any = jnp.float32
    accumulate: Any = None  # type of the result of a kernel of one voxel, where it is not `dtype`
    draw: Callable[..., jax.Array] = kernel_init  # of the kernel, fresh

    @nn.compact
    def __call__(self, x: jax.Array | tuple[jax.Array, ...]) -> jax.Array:
        """b x y z i to b x y z o; of several arrays the channels lie side by side."""
        parts = x if isinstance(x, tuple) else (x,)
        inputs, rank = sum(part.shape[-1] for part in parts), parts[0].ndim - 2
        size, strides = per_axis(self.size, rank), per_axis(self.strides, rank)
        if not all(k % 2 for k in size) or inputs % self.groups or self.features % self.groups:
            raise ConfigError(
                f"Conv: a kernel of {size} voxels must be odd, and {self.groups} groups must divide {inputs} "
                f"channels and {self.features} features."
            )
        shape = (*size, inputs // self.groups, self.features)
        kernel = self.param("kernel", self.draw, shape, jnp.float32).astype(self.dtype)
        parts = tuple(part.astype(self.dtype) for part in parts)
        if set(size) == {1} and self.groups == 1:
            seen = (slice(None), *(slice(None, None, s) for s in strides))
            parts = parts if set(strides) == {1} else tuple(part[seen] for part in parts)
            x = pointwise(parts, kernel.reshape(shape[-2:]), self.accumulate or self.dtype)
        else:
            x = self._convolve(parts, kernel, size, strides)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + broadcast_channels(bias.astype(x.dtype), x.ndim)
        return x

    def _convolve(
        self, parts: tuple[jax.Array, ...], kernel: jax.Array, size: Size, strides: Size
    ) -> jax.Array:
        """A slice is a volume of one voxel along z."""
        pads = tuple((k // 2, k // 2) for k in size)
        if len(size) == 3:
            return conv3d(parts, kernel, strides, pads, self.groups)
        parts = tuple(part[:, :, :, None] for part in parts)
        return conv3d(parts, kernel[:, :, None], (*strides, 1), (*pads, (0, 0)), self.groups)[:, :, :, 0]


class PatchEmbed(nn.Module):
    """Each cube of 2 x 2 x 2 voxels becomes one token: a convolution of size and stride 2, as a matrix product.

    Its bias is drawn, as PyTorch's: tokens of air and of hidden blocks, whose voxels are all 0, would else be 0 as well, and
    every layer norm over such a token makes its gradient longer by 1 / sqrt(epsilon).
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b 2x 2y 2z i to b x y z o."""
        b, *size, channels = x.shape
        kernel = self.param("kernel", kernel_init, (2, 2, 2, channels, self.features), jnp.float32)
        bias = self.param("bias", uniform((8 * channels) ** -0.5), (self.features,), jnp.float32)
        pairs = [length for s in size for length in (s // 2, 2)]
        x = x.astype(self.dtype).reshape(b, *pairs, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
        x = jnp.einsum("bxyzuvwi,uvwio->bxyzo", x, kernel.astype(self.dtype))
        return x + broadcast_channels(bias.astype(self.dtype), 5)


class Upsample(nn.Module):
    """Each voxel becomes a block of `size` voxels: a transposed convolution of that size and stride, a matrix product."""

    features: int
    size: int | Size = 2  # voxels, x y z or the same for all
    bias: bool = False
    dtype: Any = jnp.float32
    draw: Callable[..., jax.Array] = kernel_init  # of the kernel, fresh

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b 2x 2y 2z o; slices, b x y i, to b 2x 2y o."""
        shape = (*per_axis(self.size, x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", self.draw, shape, jnp.float32)
        x = conv_transpose(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + broadcast_channels(bias.astype(x.dtype), x.ndim)
        return x


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions with normalisation and a residual, projected where the channels change."""

    features: int
    norm: dict[str, Any]  # fields of `Norm`
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array | tuple[jax.Array, ...], train: bool = False) -> jax.Array:
        """b x y z i to b x y z o; of several arrays the channels lie side by side."""
        parts = tuple(part.astype(self.dtype) for part in (x if isinstance(x, tuple) else (x,)))

        def conv_norm(y: Any, index: int, size: int, **after: Any) -> jax.Array:
            y = keep(Conv(self.features, size, dtype=self.dtype, name=f"conv{index}")(y), MAPS)
            return Norm(**self.norm, dtype=self.dtype, name=f"norm{index}")(y, train, **after)

        if sum(part.shape[-1] for part in parts) == self.features:
            residual = jnp.concatenate(parts, -1)
        else:
            residual = conv_norm(parts, 3, 1)
        y = conv_norm(parts, 1, 3, slope=SLOPE)
        return conv_norm(y, 2, 3, residual=residual, slope=SLOPE)


class UpBlock(nn.Module):
    """A decoder step: doubles the size, joins the skip connection, then a residual block."""

    features: int
    norm: dict[str, Any]  # fields of `Norm`
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool = False) -> jax.Array:
        """`x` b x y z i and `skip` b 2x 2y 2z o to b 2x 2y 2z o."""
        x = keep(Upsample(self.features, dtype=self.dtype, name="upsample")(x), MAPS)  # b 2x 2y 2z o
        return ResidualBlock(self.features, self.norm, self.dtype, name="conv_block")((x, skip), train)
