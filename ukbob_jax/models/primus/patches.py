"""From voxels to tokens and back: the patch embeddings of Primus' three versions, and its decoder.

Axes: `b` batch, `x y z` voxels or tokens, `c` channels, `d` channels of a token, `k` classes. Parameters are float32;
`dtype` is that of the arithmetic; statistics are float32 at least.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.models.architecture import Size
from ukbob_jax.models.blocks import KEEP_MAPS, Conv, Norm, Upsample
from ukbob_jax.models.kernels.conv import conv3d
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.norm import broadcast_channels
from ukbob_jax.models.residual import ResidualStage
from ukbob_jax.models.unet import he_normal, he_normal_transposed

DECODER_EPSILON = 1e-6  # of the decoder's LayerNorm; all others have PyTorch's 1e-5
SKIP_SCALE = 1e-5  # that the projections of the finer maps start with
ONE, TWO, THREE = (1, 1, 1), (2, 2, 2), (3, 3, 3)


class PatchConv(nn.Module):
    """Each patch becomes one vector, a linear function of its voxels: a convolution whose stride is its kernel."""

    features: int
    size: Size  # voxels
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b x y z o, fewer voxels by `size`."""
        kernel = self.param("kernel", he_normal, (*self.size, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y = conv3d(x.astype(self.dtype), kernel.astype(self.dtype), self.size, "VALID")
        return y + broadcast_channels(bias.astype(y.dtype), y.ndim)


class PatchEmbed(nn.Module):
    """Version 1: each patch becomes a token, a linear function of its voxels."""

    features: int
    size: Size
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """b x y z c to [b x y z d]."""
        return [PatchConv(self.features, self.size, self.dtype, name="proj")(x)]


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
        kind = nn.remat(ResidualStage, static_argnums=(2,), policy=None if self.remat else KEEP_MAPS)

        def stage(i: int, depth: int, strides: Size, **fields: Any) -> Callable[..., jax.Array]:
            conv = {"features": self.channels[i], "size": THREE, "slope": self.slope, "dtype": self.dtype}
            return kind(depth, strides, {**conv, "bias": i == 0}, **fields)

        maps = [stage(0, 1, ONE, name="stem")(x, False)]
        for i, depth in enumerate(self.depths):
            maps.append(stage(i + 1, depth, TWO, name=f"stages_{i}")(maps[-1], False))
        *finer, x = maps
        tokens = Conv(self.features, 1, bias=True, dtype=self.dtype, draw=he_normal, name="final_proj")(x)
        for i, fine in enumerate(finer if self.skips else ()):
            tokens = tokens + self._patches(fine, i, len(finer) - i)
        return [*finer, tokens]

    def _patches(self, fine: jax.Array, number: int, halvings: int) -> jax.Array:
        size = (2**halvings,) * 3
        scale = self.param(
            f"scale_proj_to_tokens_{number}", nn.initializers.constant(SKIP_SCALE), (), jnp.float32
        )
        conv = PatchConv(self.features, size, self.dtype, name=f"proj_to_tokens_{number}")
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
        return _upsample(self.classes, steps[-1], self.dtype, f"decode_{len(widths)}")(x).astype(wide)


class Doubling(nn.Module):
    """A transposed convolution, LayerNorm over the channels of each voxel, GELU."""

    features: int
    size: Size
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z i to b x y z o, sizes times `size`."""
        x = _upsample(self.features, self.size, self.dtype, "conv")(x)
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


def _upsample(features: int, size: Size, dtype: Any, name: str) -> Upsample:
    return Upsample(features, size, True, dtype, he_normal_transposed, name=name)
