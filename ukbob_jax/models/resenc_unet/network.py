"""nnU-Net's ResidualEncoderUNet (Isensee et al. 2024): residual blocks in the encoder, convolutions in the decoder.

The numbers equal those of dynamic-network-architectures' class with the same weights, see `tests/models/resenc_unet/`.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import unet_fields
from ukbob_jax.models.architecture import Size
from ukbob_jax.models.blocks import per_axis
from ukbob_jax.models.plans_unet import PlansUNet
from ukbob_jax.models.unet import ConvNorm, ConvStage
from ukbob_jax.models.unet_fields import PerStage

BLOCKS = ("BasicBlockD", "BottleneckD")


class ResidualBlock(nn.Module):
    """Convolutions with a shortcut around them, as ResNet-D has it (He et al. 2019): averaged, and projected if need be."""

    strides: int | Size
    conv: dict[str, Any]  # fields of `ConvNorm`
    bottleneck: int = (
        0  # channels between two convolutions of one voxel; 0: two convolutions of the kernel's size
    )

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """b x y z i to b x y z o, fewer voxels by the strides."""
        one = {**self.conv, "size": (1,) * (x.ndim - 2)}
        residual = self._shortcut(x, one, train)
        if self.bottleneck:
            narrow = {"features": self.bottleneck}
            y = ConvNorm(**{**one, **narrow}, name="conv1")(x, train)
            y = ConvNorm(**{**self.conv, **narrow}, strides=self.strides, name="conv2")(y, train)
            return ConvNorm(**one, still=True, name="conv3")(y, train, residual)
        y = ConvNorm(**self.conv, strides=self.strides, name="conv1")(x, train)
        return ConvNorm(**self.conv, still=True, name="conv2")(y, train, residual)

    def _shortcut(self, x: jax.Array, one: dict[str, Any], train: bool) -> jax.Array:
        channels, strides = x.shape[-1], per_axis(self.strides, x.ndim - 2)
        pooled = set(strides) != {1}
        if pooled:
            x = average(x, strides)
        if channels == self.conv["features"]:
            return x
        # Named after its place in PyTorch's list of pooling and projection.
        return ConvNorm(**{**one, "bias": False, "slope": 1.0}, name=f"skip_{int(pooled)}")(x, train)


class ResidualStage(nn.Module):
    """Residual blocks one after the other, the first with the strides of the stage."""

    count: int
    strides: Size
    conv: dict[str, Any]  # fields of `ConvNorm`
    bottleneck: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """b x y z i to b x y z o, fewer voxels by the strides."""
        for i in range(self.count):
            strides = self.strides if i == 0 else 1
            x = ResidualBlock(strides, self.conv, self.bottleneck, name=f"block_{i}")(x, train)
        return x


class ResEncUNet(PlansUNet):
    """Segmentation network: volumes b x y z c to logits b x y z k, float32; slices b x y c to b x y k.

    Args:
        n_blocks_per_stage: residual blocks of the encoder's stages; one number or one per stage.
        block: "BasicBlockD", two convolutions, or "BottleneckD", one between two of one voxel.
        bottleneck_channels: of "BottleneckD", between its convolutions; one number or one per stage.
        stem_channels: of the convolution before the first stage; None: as many as the first stage has.

    The other fields are those of `UNet` and `PlansUNet`. With `n_blocks_per_stage=(1, 3, 4, 6, 6, 6)` and
    `n_conv_per_stage_decoder=1` it is the network of nnU-Net's ResEnc M, L and XL plans.
    """

    n_blocks_per_stage: PerStage = (1, 3, 4, 6, 6, 6)
    n_conv_per_stage_decoder: PerStage = 1
    block: str = BLOCKS[0]
    bottleneck_channels: int | Sequence[int] | None = None
    stem_channels: int | None = None

    def __post_init__(self) -> None:
        """As `PlansUNet`; the stem's channels become a number."""
        super().__post_init__()
        object.__setattr__(self, "block", unet_fields.last_name(self.block))
        if self.block not in BLOCKS:
            raise ConfigError(f"ResEncUNet: block {self.block!r} must be one of {', '.join(BLOCKS)}.")
        if self.block == "BasicBlockD":
            object.__setattr__(self, "bottleneck_channels", None)  # nothing reads them
        elif self.bottleneck_channels is None:
            raise ConfigError("ResEncUNet: block 'BottleneckD' needs bottleneck_channels.")
        else:
            self.settle("bottleneck_channels", unet_fields.each, self.n_stages)
        if self.stem_channels is None:
            object.__setattr__(self, "stem_channels", self.features_per_stage[0])

    @nn.nowrap
    def counts(self) -> tuple[str, ...]:  # noqa: D102 - as in PlansUNet
        return ("n_blocks_per_stage",)

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        super().setup()
        stem = {**self.conv_fields(0), "features": self.stem_channels}
        self.stem = self.saving(ConvStage, 1)(1, 1, stem)

    @nn.nowrap
    def encoder_stages(self) -> list[nn.Module]:  # noqa: D102 - as in UNet
        stage = self.saving(ResidualStage, 1)
        widths: Any = self.bottleneck_channels or (0,) * self.n_stages
        rows = zip(self.n_blocks_per_stage, self.strides, widths)
        return [
            stage(count, strides, self.conv_fields(i), width)
            for i, (count, strides, width) in enumerate(rows)
        ]

    def _encode(self, x: jax.Array, train: bool) -> list[jax.Array]:
        return super()._encode(self.stem(x, train), train)


def average(x: jax.Array, strides: Size) -> jax.Array:
    """The mean of each block of `strides` voxels: b X x Y y Z z c to b x y z c."""
    batch, *size, channels = x.shape
    pairs = [length for n, s in zip(size, strides) for length in (n // s, s)]
    return x.reshape(batch, *pairs, channels).mean(tuple(range(2, 2 * len(size) + 1, 2)))
