"""The architecture of a checkpoint that does not say it: what shapes and names give away.

They cannot tell which patch merging the weights were trained with, nor `normalize`, nor which of the affine norms
without running statistics it is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax.errors import MismatchError

_TABLE = "swinViT.layers{}.0.blocks.0.attn.relative_position_bias_table"


def fields(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `SwinUNETR` that tensors under MONAI's names determine; windows are taken for cubes.

    Encoders alone give no out_channels and no norm.

    Raises:
        MismatchError: these are not the weights of a Swin-UNETR, or its windows are no cubes.
    """
    try:
        patch = tensors["swinViT.patch_embed.proj.weight"].shape  # o i x y z
        tables = [tensors[_TABLE.format(stage)].shape for stage in range(1, 5)]  # rows, heads
    except KeyError as missing:
        raise MismatchError(f"not the weights of a Swin-UNETR: no {missing}.") from None
    window = (round(tables[0][0] ** (1 / 3)) + 1) // 2
    if (2 * window - 1) ** 3 != tables[0][0]:
        raise MismatchError(
            f"{tables[0][0]} relative positions do not make a cube of a window; give window_size."
        )
    found = {
        "in_channels": patch[1],
        "feature_size": patch[0],
        "depths": tuple(_depth(tensors, stage) for stage in range(1, 5)),
        "num_heads": tuple(heads for _, heads in tables),
        "window_size": (window,) * 3,
        "use_v2": any(name.startswith("swinViT.layers1c.") for name in tensors),
        "qkv_bias": "swinViT.layers1.0.blocks.0.attn.qkv.bias" in tensors,
        "patch_norm": "swinViT.patch_embed.norm.weight" in tensors,
        "mlp_ratio": tensors["swinViT.layers1.0.blocks.0.mlp.linear1.weight"].shape[0] / patch[0],
    }
    if "out.conv.conv.weight" in tensors:
        found["out_channels"] = tensors["out.conv.conv.weight"].shape[0]
        batch = "encoder1.layer.norm1.running_mean" in tensors
        affine = "encoder1.layer.norm1.weight" in tensors
        if batch:
            found |= {"norm": "batch", "norm_affine": affine}
        elif not affine:
            found["norm"] = "instance"
    return found


def _depth(tensors: Mapping[str, np.ndarray], stage: int) -> int:
    blocks = [name for name in tensors if name.startswith(f"swinViT.layers{stage}.0.blocks.")]
    return len({name.split(".")[4] for name in blocks})
