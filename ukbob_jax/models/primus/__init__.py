"""Primus: what `models/architecture.py` asks of a network."""

from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture, Stages
from ukbob_jax.models.primus.network import VERSIONS, Primus, build
from ukbob_jax.models.primus.torch_names import TORCH, settled

RATES = ("drop_path_rate", "proj_drop_rate", "attn_drop_rate", "patch_drop_rate")


def _multiple(model: Primus) -> tuple[int, ...]:
    return tuple(model.input_shape if model.placed and model.input_shape else model.patch_embed_size)


def _stages(model: Primus) -> Stages:
    """The embedding, each block of the transformer, the decoder."""
    blocks = ((rf"^eva/blocks_{i}/", i + 1) for i in range(model.eva_depth))
    return ((r"^(down_projection/|register_tokens$|eva/pos_embed$)", 0), *blocks, (r"", model.eva_depth + 1))


ARCHITECTURE = Architecture(
    name="primus",
    build=build,
    fields=architecture.module_fields,
    multiple=_multiple,
    strides=lambda model: ((1, 1, 1),),
    stages=_stages,
    parts={
        "stem": r"^down_projection/(proj|stem/block_0/(conv1|skip_0)/conv)/kernel$",
        "encoder": r"^(down_projection/|eva/|register_tokens$)",
        "decoder": r"^up_projection/decode_\d+/(conv|norm)/",
        "head": r"^up_projection/decode_\d+/(kernel|bias)$",
    },
    features="hidden",
    torch=TORCH,
    free=(*architecture.FREE, *RATES),
    classes={kind: {"version": version} for kind, version in VERSIONS.items()},
    settled=settled,
)
