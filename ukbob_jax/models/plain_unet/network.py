"""nnU-Net's PlainConvUNet (Isensee et al. 2021): stages of convolutions, transposed convolutions, in 2D or 3D.

The numbers equal those of dynamic-network-architectures' class with the same weights, see `tests/models/plain_unet/`.
"""

from flax import linen as nn

from ukbob_jax.models.plans_unet import PlansUNet
from ukbob_jax.models.unet import ConvStage
from ukbob_jax.models.unet_fields import PerStage


class PlainUNet(PlansUNet):
    """Segmentation network: volumes b x y z c to logits b x y z k, float32; slices b x y c to b x y k.

    Args:
        n_conv_per_stage: convolutions of the encoder's stages; one number or one per stage.

    The other fields are those of `UNet` and `PlansUNet`.
    """

    n_conv_per_stage: PerStage = 2

    @nn.nowrap
    def counts(self) -> tuple[str, ...]:  # noqa: D102 - as in PlansUNet
        return ("n_conv_per_stage",)

    @nn.nowrap
    def encoder_stages(self) -> list[nn.Module]:  # noqa: D102 - as in UNet
        stage = self.saving(ConvStage, 1)
        return [
            stage(count, strides, self.conv_fields(i))
            for i, (count, strides) in enumerate(zip(self.n_conv_per_stage, self.strides))
        ]
