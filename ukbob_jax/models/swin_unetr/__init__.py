"""Swin-UNETR: what `models/architecture.py` asks of a network."""

import functools

from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture, Size
from ukbob_jax.models.swin_unetr.network import MULTIPLE, SwinUNETR
from ukbob_jax.models.swin_unetr.torch_names import TORCH


def _strides(model: SwinUNETR) -> tuple[Size, ...]:
    return tuple((2**level,) * 3 for level in range(model.deep_supervision + 1))


ARCHITECTURE = Architecture(
    name="swin_unetr",
    build=functools.partial(architecture.build_module, SwinUNETR),
    fields=architecture.module_fields,
    multiple=lambda model: (MULTIPLE,) * 3,
    strides=_strides,
    stages=(
        (r"^swin/patch_embed", 0),
        (r"^swin/stage1", 1),
        (r"^swin/stage2", 2),
        (r"^swin/stage3", 3),
        (r"^swin/stage4", 4),
        (r"", 5),  # convolutions beside the encoder, decoder, head
    ),
    parts={
        "stem": r"^(swin/patch_embed|encoder1/conv[13])/kernel$",
        "encoder": r"^swin/",
        "decoder": r"^(encoder|decoder)\d+/",
        "head": r"^(head|aux_\d+)/",
    },
    features="hidden",
    torch=TORCH,
    free=(*architecture.FREE, "pad", "dropout_path_rate", "drop_rate", "attn_drop_rate", "attention"),
)
