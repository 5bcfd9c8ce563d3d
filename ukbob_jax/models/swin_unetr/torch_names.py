"""Which MONAI tensor each of our parameters is, and how its axes move.

MONAI stores linear weights (out, in), convolutions (out, in, x, y, z) and transposed convolutions (in, out, x, y, z);
ours are (in, out) and (x, y, z, in, out), the transposed ones neither flipped nor exchanged. Heads for deep
supervision have no counterpart there.
"""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.models.swin_unetr import windows
from ukbob_jax.models.swin_unetr.network import MULTIPLE, SwinUNETR

Path = tuple[str, ...]

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_STATISTICS = {"mean": "running_mean", "var": "running_var", "count": "num_batches_tracked"}
_INSIDE = (  # our path below a stage or a decoder step, MONAI's name there
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


class Tensor(NamedTuple):
    """One parameter or statistic of the model."""

    path: Path  # in our tree
    name: str  # in MONAI's state_dict
    shape: tuple[int, ...]  # ours
    axes: tuple[int, ...]  # ours = MONAI's transposed by these

    @property
    def monai_shape(self) -> tuple[int, ...]:
        """Shape in MONAI's layout."""
        return tuple(self.shape[i] for i in np.argsort(self.axes))


def monai_name(path: Path) -> str:
    """MONAI's name of the parameter at `path`."""
    *modules, leaf = path
    name = ".".join([*modules, {**_LEAVES, **_STATISTICS}.get(leaf, leaf)])
    for pattern, replacement in _INSIDE:
        name = re.sub(pattern, replacement, name)
    return name


def auxiliary(path: Path) -> bool:
    """Whether the parameter at `path` serves training alone: a head for deep supervision."""
    return path[0].startswith("aux_")


def _axes(path: Path, ndim: int) -> tuple[int, ...]:
    if path[-1] != "kernel":
        return tuple(range(ndim))
    if ndim == 2:
        return (1, 0)
    return (2, 3, 4, 0, 1) if path[-2] == "upsample" else (2, 3, 4, 1, 0)


@functools.lru_cache(maxsize=16)
def variables(model: SwinUNETR) -> dict[str, Any]:
    """Shapes of the model's variables, by collection; nothing is computed."""
    x = jax.ShapeDtypeStruct((1, *(MULTIPLE,) * 3, model.in_channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), x)


@functools.lru_cache(maxsize=16)
def tensors(model: SwinUNETR, collection: str = "params") -> tuple[Tensor, ...]:
    """Every tensor of one collection ("params" or "batch_stats") that MONAI has too, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(variables(model).get(collection, {}))
    paths = [(tuple(key.key for key in keys), leaf.shape) for keys, leaf in leaves]
    return tuple(
        Tensor(path, monai_name(path), shape, _axes(path, len(shape)))
        for path, shape in paths
        if not auxiliary(path)
    )


def index_buffers(model: SwinUNETR) -> dict[str, np.ndarray]:
    """The integer tables of relative positions that a MONAI state_dict carries beside the weights."""
    ending = "relative_position_bias_table"
    names = [tensor.name for tensor in tensors(model) if tensor.name.endswith(ending)]
    index = windows.relative_index(model.window)
    return {name.replace(ending, "relative_position_index"): index.copy() for name in names}
