"""nnU-Net's ResidualEncoderUNet (Isensee et al. 2024): residual blocks in the encoder, convolutions in the decoder.

The numbers equal those of dynamic-network-architectures' class with the same weights, see `tests/models/resenc_unet/`.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import unet_fields
from ukbob_jax.models.plans_unet import PlansUNet
from ukbob_jax.models.residual import ResidualStage
from ukbob_jax.models.unet import ConvStage
from ukbob_jax.models.unet_fields import PerStage

BLOCKS = ("BasicBlockD", "BottleneckD")


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
        elif self.bottleneck_channels in (None, (), []):
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
            stage(count, strides, self.conv_fields(i), width, still=True)
            for i, (count, strides, width) in enumerate(rows)
        ]

    def _encode(self, x: jax.Array, train: bool) -> list[jax.Array]:
        return super()._encode(self.stem(x, train), train)
