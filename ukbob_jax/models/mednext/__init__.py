"""MedNeXt: what `models/architecture.py` asks of a network."""

from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture
from ukbob_jax.models.mednext.network import MULTIPLE, build
from ukbob_jax.models.mednext.torch_names import TORCH

ARCHITECTURE = Architecture(
    name="mednext",
    build=build,
    fields=architecture.module_fields,
    multiple=lambda model: (MULTIPLE,) * model.rank,
    strides=lambda model: model.strides,
    stages=(
        (r"^(stem|enc_block_0_\d+)/", 0),
        (r"^(down_0|enc_block_1_\d+)/", 1),
        (r"^(down_1|enc_block_2_\d+)/", 2),
        (r"^(down_2|enc_block_3_\d+)/", 3),
        (r"^(down_3|bottleneck_\d+)/", 4),
        (r"", 5),  # decoder, heads
    ),
    parts={
        "stem": r"^stem/kernel$",
        "encoder": r"^(stem|enc_block_\d_\d+|down_\d|bottleneck_\d+)/",
        "decoder": r"^(up_\d|dec_block_\d_\d+)/",
        "head": r"^out_\d/",
    },
    features="hidden",
    torch=TORCH,
    classes={"MedNeXt": {}},
)
