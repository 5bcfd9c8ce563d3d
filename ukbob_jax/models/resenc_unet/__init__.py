"""ResidualEncoderUNet: what `models/architecture.py` asks of a network."""

import functools

from ukbob_jax.models import plans_unet
from ukbob_jax.models.resenc_unet.network import ResEncUNet
from ukbob_jax.models.resenc_unet.torch_names import TORCH
from ukbob_jax.models.unet import ARCHITECTURE_OF_UNETS

ARCHITECTURE = ARCHITECTURE_OF_UNETS._replace(
    name="resenc_unet",
    build=functools.partial(plans_unet.build, ResEncUNet),
    parts={**ARCHITECTURE_OF_UNETS.parts, "stem": r"^stem/block_0/conv/kernel$"},
    torch=TORCH,
    classes={"ResidualEncoderUNet": {}},
)
