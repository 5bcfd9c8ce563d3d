"""What MONAI's `SwinUNETR` and public checkpoints of it call our parameters.

Public checkpoints: whole networks wrapped by trainers (`module.`, `net.`, `model.`, `backbone.`, or any name if there
is one network in the file), self-supervised encoders alone (`patch_embed...`, `layers1.0...`, with `mlp.fc1` and
`fc2`), under `swin_vit.`, `swinViT.` or `encoder.`, and beside them the heads of the pre-training task. Heads for deep
supervision have no counterpart in MONAI.
"""

import numpy as np

from ukbob_jax.models.architecture import TorchNames
from ukbob_jax.models.swin_unetr import infer, windows
from ukbob_jax.models.swin_unetr.network import SwinUNETR

_RULES = (
    (r"stage(\d)_block(\d+)\.", r"swinViT.layers\1.0.blocks.\2."),
    (r"stage(\d)_merging\.", r"swinViT.layers\1.0.downsample."),
    (r"stage(\d)_conv_block\.", r"swinViT.layers\1c.0.layer."),
    (r"swin\.patch_embed\.", "swinViT.patch_embed.proj."),
    (r"swin\.patch_norm\.", "swinViT.patch_embed.norm."),
    (r"^swin\.", ""),
    (r"^(encoder\d+)\.", r"\1.layer."),
    (r"^head\.", "out.conv.conv."),
    (r"\.upsample\.", ".transp_conv.conv."),
    (r"\.(conv\d)\.", r".\1.conv."),
    (r"\.attention\.", ".attn."),
    (r"\.relative_bias$", ".relative_position_bias_table"),
)
_ALIASES = (
    (r"(?i)^swin_?vit\.", "swinViT."),
    (r"^encoder\.(layers\d)\.0\.\d+\.", r"swinViT.\1.0."),  # one more level in the denoising pre-training
    (r"^encoder\.(?=patch_embed\.|layers\dc?\.)", "swinViT."),
    (r"^(?=patch_embed\.|layers\dc?\.)", "swinViT."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
)
_PRETEXT = (
    r"^(swinViT\.)?(rotation_head|rotation_pre|contrastive_head|contrastive_pre|convTrans3d|norm|mask_token"
    r"|encoder\.(norm|mask_token)|(student|teacher)\.layer\d)(\.|$)"  # the last: VoCo's projections
)


def index_buffers(model: SwinUNETR) -> dict[str, np.ndarray]:
    """The integer tables of relative positions that a MONAI state_dict carries beside the weights."""
    index = windows.relative_index(model.window)
    blocks = [(stage, i) for stage, depth in enumerate(model.depths, 1) for i in range(depth)]
    name = "swinViT.layers{}.0.blocks.{}.attn.relative_position_index"
    return {name.format(stage, i): index.copy() for stage, i in blocks}


TORCH = TorchNames(
    rules=_RULES,
    auxiliary=r"^aux_",
    buffers=index_buffers,
    aliases=_ALIASES,
    pretext=_PRETEXT,
    first=r"(?i)(.*?)((swin_?vit|encoder)\.)?patch_embed\.proj\.weight",
    infer=infer.fields,
    hidden=("downsample",),
)
