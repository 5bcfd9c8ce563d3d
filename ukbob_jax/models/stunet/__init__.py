"""STU-Net: what `models/architecture.py` asks of a network."""

from ukbob_jax.models.stunet.network import build
from ukbob_jax.models.stunet.torch_names import TORCH
from ukbob_jax.models.unet import ARCHITECTURE_OF_UNETS

ARCHITECTURE = ARCHITECTURE_OF_UNETS._replace(
    name="stunet",
    build=build,
    parts={
        **ARCHITECTURE_OF_UNETS.parts,
        "stem": r"^encoder_0/block_0/(conv1/conv|shortcut)/kernel$",
    },
    torch=TORCH,
    classes={"STUNet": {}},
)
