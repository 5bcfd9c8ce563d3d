"""PlainConvUNet: what `models/architecture.py` asks of a network."""

import functools

from ukbob_jax.models import plans_unet
from ukbob_jax.models.plain_unet.network import PlainUNet
from ukbob_jax.models.plain_unet.torch_names import TORCH
from ukbob_jax.models.unet import ARCHITECTURE_OF_UNETS

ARCHITECTURE = ARCHITECTURE_OF_UNETS._replace(
    name="plain_unet",
    build=functools.partial(plans_unet.build, PlainUNet),
    torch=TORCH,
    classes={"PlainConvUNet": {}},
)
