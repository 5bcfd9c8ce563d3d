"""From voxels to tokens and back: the patch embeddings of Primus' three versions, and its decoder.

Axes: `b` batch, `x y z` voxels or tokens, `c` channels, `d` channels of a token, `k` classes. Parameters are float32;
`dtype` is that of the arithmetic; statistics are float32 at least.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from ukbob_jax.models.architecture import Size
from ukbob_jax.models.blocks import KEEP_MAPS, MAPS, SLOPE, Norm
from ukbob_jax.models.kernels.conv import conv3d
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.norm import broadcast_channels

DECODER_EPSILON = 1e-6  # of the decoder's LayerNorm; all others have PyTorch's 1e-5
SKIP_SCALE = 1e-5  # that the projections of the finer maps start with
ONE, TWO, THREE = (1, 1, 1), (2, 2, 2), (3, 3, 3)


class Conv(nn.Module):
    """A convolution drawn as nnU-Net draws them: He's normal distribution for a leaky ReLU, bias 0."""

    features: int
    size: Size  # voxels
    strides: Size = ONE
    padded: bool = True  # zeros around, size // 2 of them
    bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b x y z o."""
        inputs = x.shape[-1]
        draw = _he(inputs * math.prod(self.size))
        kernel = self.param("kernel", draw, (*self.size, inputs, self.features), jnp.float32)
        pads = tuple((n // 2, n // 2) if self.padded else (0, 0) for n in self.size)
        y = conv3d(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, pads)
        return _with_bias(self, y) if self.bias else y


class ConvTranspose(nn.Module):
    """Each voxel becomes a block of `size` voxels, a linear function of its channels; drawn as `Conv`."""

    features: int
    size: Size
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b x y z o, sizes times `size`."""
        draw = _he(self.features * math.prod(self.size))
        kernel = self.param("kernel", draw, (*self.size, x.shape[-1], self.features), jnp.float32)
        return _with_bias(self, _spread(x.astype(self.dtype), kernel.astype(self.dtype)))


class ConvNorm(nn.Module):
    """A convolution and an affine instance norm, then `residual` added, then a leaky ReLU of this slope (1: none)."""

    features: int
    size: Size
    strides: Size = ONE
    bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, residual: jax.Array | None = None, slope: float = 1.0) -> jax.Array:
        """b x y z i to b x y z o."""
        y = Conv(self.features, self.size, self.strides, bias=self.bias, dtype=self.dtype, name="conv")(x)
        norm = Norm("instance_affine", dtype=self.dtype, name="norm")
        if slope == 0:  # the norm's own gradient takes the sign of its result, which a ReLU hides
            return nn.relu(norm(checkpoint_name(y, MAPS), residual=residual))
        return norm(checkpoint_name(y, MAPS), residual=residual, slope=slope)


class ResidualBlock(nn.Module):
    """Two convolutions with instance norms, and a shortcut of means and a projection (ResNet-D, He et al. 2019)."""

    features: int
    strides: Size = ONE
    slope: float = SLOPE  # of the leaky ReLU; 0: a ReLU
    bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b x y z o."""
        conv = functools.partial(ConvNorm, self.features, dtype=self.dtype)
        shortcut, halved = x, self.strides != ONE
        if halved:
            shortcut = _means(shortcut, self.strides)
        if x.shape[-1] != self.features:
            shortcut = conv(ONE, name=f"skip_{int(halved)}")(shortcut)
        y = conv(THREE, self.strides, self.bias, name="conv1")(x, slope=self.slope)
        return conv(THREE, bias=self.bias, name="conv2")(y, residual=shortcut, slope=self.slope)


class Stage(nn.Module):
    """Residual blocks, the first of which may halve the size."""

    features: int
    depth: int = 1
    strides: Size = ONE
    slope: float = SLOPE
    bias: bool = False
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b x y z o."""
        block = nn.remat(ResidualBlock, policy=None if self.remat else KEEP_MAPS)
        shared: dict[str, Any] = {"slope": self.slope, "bias": self.bias, "dtype": self.dtype}
        for i in range(self.depth):
            x = block(self.features, ONE if i else self.strides, **shared, name=f"blocks_{i}")(x)
        return x


class PatchEmbed(nn.Module):
    """Version 1: each patch becomes a token, a linear function of its voxels."""

    features: int
    size: Size
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """b x y z c to [b x y z d]."""
        return [Conv(self.features, self.size, self.size, False, dtype=self.dtype, name="proj")(x)]


class ResidualEmbed(nn.Module):
    """Versions 2 and 3: residual blocks, halved from stage to stage, and in version 3 every finer map's patches added."""

    features: int
    channels: Sequence[int]  # of the stem and of each stage
    depths: Sequence[int]  # blocks of each stage
    skips: bool
    slope: float
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """b x y z c to the maps of stem and stages, the last one replaced by the tokens, b x y z d."""
        stage = functools.partial(Stage, slope=self.slope, remat=self.remat, dtype=self.dtype)
        maps = [stage(self.channels[0], bias=True, name="stem")(x)]
        for i, (width, depth) in enumerate(zip(self.channels[1:], self.depths)):
            maps.append(stage(width, depth, TWO, name=f"stages_{i}")(maps[-1]))
        *finer, x = maps
        tokens = Conv(self.features, ONE, dtype=self.dtype, name="final_proj")(x)
        for i, fine in enumerate(finer if self.skips else ()):
            tokens = tokens + self._patches(fine, i, len(finer) - i)
        return [*finer, tokens]

    def _patches(self, fine: jax.Array, number: int, halvings: int) -> jax.Array:
        size = (2**halvings,) * 3
        scale = self.param(
            f"scale_proj_to_tokens_{number}", nn.initializers.constant(SKIP_SCALE), (), jnp.float32
        )
        conv = Conv(self.features, size, size, False, dtype=self.dtype, name=f"proj_to_tokens_{number}")
        return scale.astype(self.dtype) * conv(fine)


class PatchDecode(nn.Module):
    """From tokens to logits: transposed convolutions that double the size, with LayerNorm and GELU between them."""

    classes: int
    patch: Size
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z d to b x y z k, sizes times `patch`; at least float32."""
        steps = doublings(self.patch)
        widths = _widths(x.shape[-1], self.classes, len(steps))
        for i, (width, size) in enumerate(zip(widths, steps)):
            x = Doubling(width, size, self.dtype, name=f"decode_{i}")(x)
        wide = at_least_float32(self.dtype)
        return ConvTranspose(self.classes, steps[-1], self.dtype, name=f"decode_{len(widths)}")(x).astype(
            wide
        )


class Doubling(nn.Module):
    """A transposed convolution, LayerNorm over the channels of each voxel, GELU."""

    features: int
    size: Size
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b x y z o, sizes times `size`."""
        x = ConvTranspose(self.features, self.size, self.dtype, name="conv")(x)
        x = Norm("layer", epsilon=DECODER_EPSILON, dtype=self.dtype, name="norm")(x)
        return nn.gelu(x, approximate=False)


def doublings(patch: Size) -> tuple[Size, ...]:
    """What the decoder's steps multiply the sizes by, 1 or 2 per axis, so that together they are `patch`: powers of two.

    An axis of a shorter patch is doubled by the last steps.
    """
    halvings = [n.bit_length() - 1 for n in patch]
    steps = max(halvings)
    return tuple(tuple(1 + (step >= steps - n) for n in halvings) for step in range(steps))


def _widths(tokens: int, classes: int, steps: int) -> list[int]:
    """Channels after each step but the last: a geometric fall to twice the classes, in eights, at least 8."""
    ratio = (tokens / (2 * classes)) ** (1 / steps)
    return [max(8, round((tokens / ratio**step + 1e-6) / 8) * 8) for step in range(1, steps)]


def _means(x: jax.Array, strides: Size) -> jax.Array:
    """The mean of each block of `strides` voxels."""
    pairs = [n for size, step in zip(x.shape[1:4], strides) for n in (size // step, step)]
    blocks = x.astype(at_least_float32(x.dtype)).reshape(x.shape[0], *pairs, x.shape[-1])
    return blocks.mean((2, 4, 6)).astype(x.dtype)


def _spread(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`y[b, X x + p, Y y + q, Z z + r, o] = sum_i x[b, x, y, z, i] kernel[p, q, r, i, o]`, the kernel X Y Z voxels large."""
    blocks = jnp.einsum("bxyzi,pqrio->bxpyqzro", x, kernel)
    sizes = (n * k for n, k in zip(x.shape[1:4], kernel.shape))
    return blocks.reshape(x.shape[0], *sizes, kernel.shape[-1])


def _he(fan: int) -> Callable[..., jax.Array]:
    """Draws for layers before a leaky ReLU (He et al. 2015), `fan` numbers per sum; flat, as `kernel_init`."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        std = math.sqrt(2 / (1 + SLOPE**2) / fan)
        return (std * jax.random.normal(key, (math.prod(shape),), dtype)).reshape(shape)

    return draw


def _with_bias(module: nn.Module, y: jax.Array) -> jax.Array:
    bias = module.param("bias", nn.initializers.zeros, y.shape[-1:], jnp.float32)
    return y + broadcast_channels(bias.astype(y.dtype), y.ndim)
