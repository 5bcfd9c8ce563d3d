"""The names public Swin-UNETR checkpoints give their tensors, brought to those of MONAI's `SwinUNETR`.

Seen: whole networks wrapped by trainers (`module.`, `net.`, `model.`, `backbone.`), self-supervised encoders alone
(`patch_embed...`, `layers1.0...`, with `mlp.fc1` and `fc2`), under `swin_vit.`, `swinViT.` or `encoder.`, and beside
them the heads of the pre-training task.
"""

import re
from collections.abc import Mapping

import numpy as np

from ukbob_jax.errors import MismatchError

_RULES = (
    (r"^((_orig_mod|module|net|network|model|backbone)\.)+", ""),
    (r"^(swin_vit|swinvit|SwinViT)\.", "swinViT."),
    (r"^encoder\.(layers\d)\.0\.\d+\.", r"swinViT.\1.0."),  # one more level in the denoising pre-training
    (r"^encoder\.(?=patch_embed\.|layers\dc?\.)", "swinViT."),
    (r"^(?=patch_embed\.|layers\dc?\.)", "swinViT."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
)
# Parts of pre-training tasks, which no segmentation network has.
_PRETEXT = re.compile(
    r"^(swinViT\.)?(rotation_head|rotation_pre|contrastive_head|contrastive_pre|convTrans3d|norm|mask_token"
    r"|encoder\.(norm|mask_token))(\.|$)"
)


def canonical(name: str) -> str:
    """MONAI's name of the tensor a checkpoint calls `name`; unknown names stay."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def rename(tensors: Mapping[str, np.ndarray], where: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """`tensors` under MONAI's names, and the names left out because they belong to a pre-training task.

    Raises:
        MismatchError: two tensors would get the same name; the message starts with `where`.
    """
    renamed: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    left_out = []
    for name, array in tensors.items():
        new = canonical(name)
        if _PRETEXT.match(new):
            left_out.append(name)
            continue
        if new in renamed:
            raise MismatchError(f"{where}: {origin[new]} and {name} are both {new}. Keep one of them.")
        renamed[new], origin[new] = array, name
    return renamed, tuple(left_out)
