"""The names public Swin-UNETR checkpoints give their tensors, brought to those of MONAI's `SwinUNETR`.

Seen: whole networks wrapped by trainers (`module.`, `net.`, `model.`, `backbone.`, or any name if there is one network
in the file), self-supervised encoders alone (`patch_embed...`, `layers1.0...`, with `mlp.fc1` and `fc2`), under
`swin_vit.`, `swinViT.` or `encoder.`, and beside them the heads of the pre-training task.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from ukbob_jax.errors import MismatchError

_RULES = (
    (r"^((_orig_mod|module|net|network|model|backbone)\.)+", ""),
    (r"(?i)^swin_?vit\.", "swinViT."),
    (r"^encoder\.(layers\d)\.0\.\d+\.", r"swinViT.\1.0."),  # one more level in the denoising pre-training
    (r"^encoder\.(?=patch_embed\.|layers\dc?\.)", "swinViT."),
    (r"^(?=patch_embed\.|layers\dc?\.)", "swinViT."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
)
# Parts of pre-training tasks, which no segmentation network has.
_PRETEXT = re.compile(
    r"^(swinViT\.)?(rotation_head|rotation_pre|contrastive_head|contrastive_pre|convTrans3d|norm|mask_token"
    r"|encoder\.(norm|mask_token)|(student|teacher)\.layer\d)(\.|$)"  # the last: VoCo's projections
)
# The first tensor of an encoder; what stands before it is the trainers'.
_FIRST = re.compile(r"(?i)(.*?)((swin_?vit|encoder)\.)?patch_embed\.proj\.weight")


def canonical(name: str) -> str:
    """MONAI's name of the tensor a checkpoint calls `name`; unknown names stay."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def wrapping(names: Iterable[str]) -> str:
    """What stands before the names of the one network there is, such as "student.backbone."; "" if there are several."""
    found = {match[1] for name in names if (match := _FIRST.fullmatch(name))}
    return found.pop() if len(found) == 1 else ""


def rename(
    tensors: Mapping[str, np.ndarray], where: str, drop: re.Pattern[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """`tensors` under MONAI's names, and the names left out: found by `drop`, or parts of a pre-training task.

    Raises:
        MismatchError: two tensors would get the same name; the message starts with `where`.
    """
    renamed: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    left_out = [name for name in tensors if drop and drop.search(name)]
    kept = {name: array for name, array in tensors.items() if name not in left_out}
    before = wrapping(kept)
    for name, array in kept.items():
        new = canonical(name.removeprefix(before))
        if _PRETEXT.match(new):
            left_out.append(name)
            continue
        if new in renamed:
            raise MismatchError(f"{where}: {origin[new]} and {name} are both {new}. Keep one of them.")
        renamed[new], origin[new] = array, name
    return renamed, tuple(left_out)
