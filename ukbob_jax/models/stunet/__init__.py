"""STU-Net: what `models/architecture.py` asks of a network."""

import functools

from ukbob_jax.models import architecture
from ukbob_jax.models.stunet.network import STUNet
from ukbob_jax.models.stunet.torch_names import TORCH
from ukbob_jax.models.unet import ARCHITECTURE_OF_UNETS

ARCHITECTURE = ARCHITECTURE_OF_UNETS._replace(
    name="stunet",
    build=functools.partial(architecture.build_module, STUNet),
    parts={
        **ARCHITECTURE_OF_UNETS.parts,
        "stem": r"^encoder_0/block_0/(conv1/conv|shortcut)/kernel$",
    },
    torch=TORCH,
)
