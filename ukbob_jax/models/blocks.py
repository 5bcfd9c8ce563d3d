"""The parts that networks are built from: convolutions, normalisation, residual blocks.

Axes: b batch, x y z voxels, c channels. Parameters are float32; `dtype` is that of the arithmetic; statistics are
float32 at least.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.models.architecture import Size
from ukbob_jax.models.kernels.conv import conv3d, conv_transpose2
from ukbob_jax.models.kernels.product import wide_product

NORMS = ("instance", "instance_affine", "batch", "group", "layer")
EPSILON = 1e-5  # of every normalisation, as PyTorch's
SLOPE = 0.01  # of the leaky ReLU
BATCH_MOMENTUM = 0.1  # weight of the new statistics, PyTorch's convention


def kernel_init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform within 1 / sqrt(inputs per output), PyTorch's default for linear layers and convolutions.

    Drawn flat: XLA takes seconds to compile a draw with five axes on CPU.
    """
    bound = math.prod(shape[:-1]) ** -0.5
    return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)


class Dropout(nn.Module):
    """Zeroes a share `rate` of the values, or of the samples of a batch, and scales up the rest (rng "dropout")."""

    rate: float
    whole_samples: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`x` (b ...); unchanged without `train`."""
        if not train or self.rate == 0:
            return x
        shape = x.shape[:1] + (1,) * (x.ndim - 1) if self.whole_samples else x.shape
        keep = jax.random.bernoulli(
            self.make_rng("dropout"), 1 - self.rate, (math.prod(shape),)
        )  # flat, see above
        return jnp.where(keep.reshape(shape), x / max(1 - self.rate, EPSILON), 0).astype(x.dtype)


def at_least_float32(dtype: Any) -> Any:
    """The type for statistics, softmax and logits: float32, or float64 where the arithmetic is float64."""
    return jnp.promote_types(dtype, jnp.float32)


def broadcast_channels(values: jax.Array, ndim: int) -> jax.Array:
    """A vector over channels, shaped to meet an array with `ndim` axes, channels last."""
    return values.reshape((1,) * (ndim - 1) + (-1,))


def standardize(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """`x` less its mean over `axes`, divided by its standard deviation there (biased, epsilon inside the root)."""
    x = x - x.mean(axes, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axes, keepdims=True) + EPSILON)


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

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`x` (b ... c), normalised; `train` takes and updates the batch's own statistics in "batch"."""
        channels = x.shape[-1]
        space = tuple(range(1, x.ndim - 1))
        y = x.astype(at_least_float32(self.dtype))
        if self.kind == "batch":
            y = self._batch(y, train)
        elif self.kind == "group":
            grouped = y.reshape(*y.shape[:-1], self.groups, channels // self.groups)
            y = standardize(grouped, (*space, x.ndim)).reshape(x.shape)
        else:
            y = standardize(y, (x.ndim - 1,) if self.kind == "layer" else space)
        if self.affine and self.kind != "instance":
            scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
            y = y * broadcast_channels(scale, x.ndim) + broadcast_channels(bias, x.ndim)
        return y.astype(self.dtype)

    def _batch(self, x: jax.Array, train: bool) -> jax.Array:
        channels, axes = x.shape[-1], tuple(range(x.ndim - 1))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)
        if not train:
            x = x - broadcast_channels(mean.value, x.ndim)
            return x * broadcast_channels(jax.lax.rsqrt(var.value + EPSILON), x.ndim)
        if not self.is_initializing():
            total = x.size // channels
            unbiased = x.var(axes) * total / max(total - 1, 1)
            for running, new in ((mean, x.mean(axes)), (var, unbiased)):
                step = BATCH_MOMENTUM * (new - running.value)
                running.value = (running.value + step).astype(jnp.float32)
            count.value = count.value + 1
        return standardize(x, axes)


class Conv(nn.Module):
    """Convolution with an odd kernel and zeros around, so that stride 1 keeps the size, as PyTorch's with padding k // 2.

    A kernel of one voxel is a matrix product. With stride s an axis of n voxels becomes one of (n - 1) // s + 1.
    """

    features: int
    size: int | Size = 3  # voxels, x y z or the same for all
    strides: Size = (1, 1, 1)
    groups: int = 1  # runs of channels, each seen by its own run of features
    bias: bool = False
    dtype: Any = jnp.float32
    accumulate: Any = None  # type of the result of a kernel of one voxel, where it is not `dtype`

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b x y z o."""
        size = (self.size,) * 3 if isinstance(self.size, int) else tuple(self.size)
        if not all(k % 2 for k in size) or x.shape[-1] % self.groups or self.features % self.groups:
            raise ConfigError(
                f"Conv: a kernel of {size} voxels must be odd, and {self.groups} groups must divide {x.shape[-1]} "
                f"channels and {self.features} features."
            )
        shape = (*size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", kernel_init, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if size == self.strides == (1, 1, 1) and self.groups == 1:
            x = wide_product(x, kernel[0, 0, 0], self.accumulate or self.dtype)
        else:
            x = conv3d(x, kernel, self.strides, tuple((k // 2, k // 2) for k in size), self.groups)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + broadcast_channels(bias.astype(x.dtype), 5)
        return x


class PatchEmbed(nn.Module):
    """Each cube of 2 x 2 x 2 voxels becomes one token: a convolution of size and stride 2, as a matrix product."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b 2x 2y 2z i to b x y z o."""
        b, *size, channels = x.shape
        kernel = self.param("kernel", kernel_init, (2, 2, 2, channels, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        pairs = [length for s in size for length in (s // 2, 2)]
        x = x.astype(self.dtype).reshape(b, *pairs, channels).transpose(0, 1, 3, 5, 2, 4, 6, 7)
        x = jnp.einsum("bxyzuvwi,uvwio->bxyzo", x, kernel.astype(self.dtype))
        return x + broadcast_channels(bias.astype(self.dtype), 5)


class Upsample(nn.Module):
    """Each voxel becomes a cube of 2 x 2 x 2: a transposed convolution of size and stride 2, as a matrix product."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b 2x 2y 2z o."""
        kernel = self.param("kernel", kernel_init, (2, 2, 2, x.shape[-1], self.features), jnp.float32)
        return conv_transpose2(x.astype(self.dtype), kernel.astype(self.dtype))


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions with normalisation and a residual, projected where the channels change."""

    features: int
    norm: dict[str, Any]  # fields of `Norm`
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """b x y z i to b x y z o."""

        def conv_norm(y: jax.Array, index: int, size: int) -> jax.Array:
            y = Conv(self.features, size, dtype=self.dtype, name=f"conv{index}")(y)
            return Norm(**self.norm, dtype=self.dtype, name=f"norm{index}")(y, train)

        residual = x.astype(self.dtype)
        y = nn.leaky_relu(conv_norm(residual, 1, 3), SLOPE)
        y = conv_norm(y, 2, 3)
        if x.shape[-1] != self.features:
            residual = conv_norm(residual, 3, 1)
        return nn.leaky_relu(y + residual, SLOPE)


class UpBlock(nn.Module):
    """A decoder step: doubles the size, joins the skip connection, then a residual block."""

    features: int
    norm: dict[str, Any]  # fields of `Norm`
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool = False) -> jax.Array:
        """`x` b x y z i and `skip` b 2x 2y 2z o to b 2x 2y 2z o."""
        x = Upsample(self.features, self.dtype, name="upsample")(x)  # b 2x 2y 2z o
        x = jnp.concatenate((x, skip.astype(self.dtype)), axis=-1)
        return ResidualBlock(self.features, self.norm, self.dtype, name="conv_block")(x, train)
