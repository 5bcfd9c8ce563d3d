"""nnU-Net's PlainConvUNet (Isensee et al. 2021): stages of convolutions, transposed convolutions, in 2D or 3D.

The numbers equal those of dynamic-network-architectures' class with the same weights, see `tests/models/plain_unet/`.
"""

from typing import Any

from flax import linen as nn

from ukbob_jax.models.activations import LEAKY
from ukbob_jax.models.plans_unet import PlansUNet
from ukbob_jax.models.unet import ConvStage
from ukbob_jax.models.unet_fields import PerStage


class PlainUNet(PlansUNet):
    """Segmentation network: volumes b x y z c to logits b x y z k, float32; slices b x y c to b x y k.

    Args:
        n_conv_per_stage: convolutions of the encoder's stages; one number or one per stage.
        nonlin_first: each activation stands before its norm, not behind it.

    The other fields are those of `UNet` and `PlansUNet`.
    """

    n_conv_per_stage: PerStage = 2
    nonlin_first: bool = False

    @nn.nowrap
    def counts(self) -> tuple[str, ...]:  # noqa: D102 - as in PlansUNet
        return ("n_conv_per_stage",)

    @nn.nowrap
    def conv_fields(self, stage: int) -> dict[str, Any]:  # noqa: D102 - as in PlansUNet
        return {**super().conv_fields(stage), "activation_first": self.nonlin_first}

    @nn.nowrap
    def place_of_norm(self, drops: bool) -> int:  # noqa: D102 - as in PlansUNet
        some = self.activation != LEAKY or self.slope != 1
        return super().place_of_norm(drops) + (self.nonlin_first and some)

    @nn.nowrap
    def encoder_stages(self) -> list[nn.Module]:  # noqa: D102 - as in UNet
        stage = self.saving(ConvStage, 1)
        return [
            stage(count, strides, self.conv_fields(i))
            for i, (count, strides) in enumerate(zip(self.n_conv_per_stage, self.strides))
        ]
