"""Residual blocks of convolutions, as dynamic-network-architectures has them: for encoders and for embeddings of patches.

Axes: b batch, x y z voxels (slices have no z), i and o channels.
"""

from typing import Any

import jax
from flax import linen as nn

from ukbob_jax.models.activations import LEAKY
from ukbob_jax.models.architecture import Size
from ukbob_jax.models.blocks import per_axis
from ukbob_jax.models.unet import ConvNorm


class ResidualBlock(nn.Module):
    """Convolutions with a shortcut around them, as ResNet-D has it (He et al. 2019): averaged, and projected if need be."""

    strides: int | Size
    conv: dict[str, Any]  # fields of `ConvNorm`
    bottleneck: int = 0  # channels between two convolutions of one voxel; 0: two of the kernel's size
    still: bool = False  # the last norm starts at zero, so that the block begins as its shortcut

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """b x y z i to b x y z o, fewer voxels by the strides."""
        calm = {
            **self.conv,
            "dropout": "",
            "dropout_rate": 0.0,
        }  # only the convolution with the strides drops
        one = {**calm, "size": (1,) * (x.ndim - 2)}
        residual = self._shortcut(x, one, train)
        if self.bottleneck:
            narrow = {"features": self.bottleneck}
            y = ConvNorm(**{**one, **narrow}, name="conv1")(x, train)
            y = ConvNorm(**{**self.conv, **narrow}, strides=self.strides, name="conv2")(y, train)
            return ConvNorm(**one, still=self.still, name="conv3")(y, train, residual)
        y = ConvNorm(**self.conv, strides=self.strides, name="conv1")(x, train)
        return ConvNorm(**calm, still=self.still, name="conv2")(y, train, residual)

    def _shortcut(self, x: jax.Array, one: dict[str, Any], train: bool) -> jax.Array:
        channels, strides = x.shape[-1], per_axis(self.strides, x.ndim - 2)
        pooled = set(strides) != {1}
        if pooled:
            x = average(x, strides)
        if channels == self.conv["features"]:
            return x
        # Named after its place in PyTorch's list of pooling and projection.
        plain = {**one, "bias": False, "activation": LEAKY, "slope": 1.0}
        return ConvNorm(**plain, name=f"skip_{int(pooled)}")(x, train)


class ResidualStage(nn.Module):
    """Residual blocks one after the other, the first with the strides of the stage."""

    count: int
    strides: int | Size
    conv: dict[str, Any]  # fields of `ConvNorm`
    bottleneck: int = 0
    still: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """b x y z i to b x y z o, fewer voxels by the strides."""
        for i in range(self.count):
            strides = self.strides if i == 0 else 1
            x = ResidualBlock(strides, self.conv, self.bottleneck, self.still, name=f"block_{i}")(x, train)
        return x


def average(x: jax.Array, strides: Size) -> jax.Array:
    """The mean of each block of `strides` voxels: b X x Y y Z z c to b x y z c."""
    batch, *size, channels = x.shape
    pairs = [length for n, s in zip(size, strides) for length in (n // s, s)]
    return x.reshape(batch, *pairs, channels).mean(tuple(range(2, 2 * len(size) + 1, 2)))
