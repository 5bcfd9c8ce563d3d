"""What dynamic-network-architectures calls our parameters, and what the tensors of a checkpoint say of the network."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ukbob_jax.errors import MismatchError
from ukbob_jax.models.architecture import Path, TorchNames, conv_axes
from ukbob_jax.models.primus.network import SECOND_CHANNELS, Primus

_RULES = (
    (r"\.decode_(\d+)\.conv\.", r".decode.\1.0."),
    (r"\.decode_(\d+)\.norm\.", r".decode.\1.1."),
    (r"\.block_(\d+)\.", r".blocks.\1."),
    (r"\.(decode|blocks|stages|skip|proj_to_tokens|scale_proj_to_tokens)_(\d+)(?=\.|$)", r".\1.\2"),
)
# A convolution and its norm stand in a state_dict again, as members of a sequence of modules.
_AGAIN = {"conv": "all_modules.0", "norm": "all_modules.1"}


def _axes(path: Path, ndim: int) -> tuple[int, ...]:
    """Axes of PyTorch's arrays in the order of ours; kernels of the decoder are (in, out, x, y, z)."""
    if path[0] == "up_projection" and path[-1] == "kernel":
        return (*range(2, ndim), 0, 1)
    return conv_axes(path, ndim)


def _mask_token(model: Primus) -> dict[str, np.ndarray]:
    """What stands for a patch that masked training hides: zeros, and no parameter."""
    return {"mask_token": np.zeros((1, 1, model.embed_dim), np.float32)}


def _copies(model: Primus) -> dict[str, str]:
    """Second names of the convolutions and norms of the residual blocks."""
    if model.version in (None, 1):
        return {}
    found = {}
    for block, biased, shortcut in _blocks(model):
        for layer, bias in (("conv1", biased), ("conv2", biased), *((name, False) for name in shortcut)):
            leaves = ["conv.weight", *["conv.bias"] * bias, "norm.weight", "norm.bias"]
            for part, leaf in (name.split(".") for name in leaves):
                where = f"down_projection.{block}.{layer}."
                found[f"{where}{_AGAIN[part]}.{leaf}"] = f"{where}{part}.{leaf}"
    return found


def _blocks(model: Primus) -> Iterator[tuple[str, bool, list[str]]]:
    """Each residual block: its name, whether its convolutions have a bias, its projection in the shortcut if any."""
    widths, depths = model.levels
    yield "stem.blocks.0", True, ["skip.0"] * (widths[0] != model.in_channels)
    for stage, depth in enumerate(depths):
        for i in range(depth):
            projected = i == 0 and widths[stage] != widths[stage + 1]
            yield f"stages.{stage}.blocks.{i}", False, ["skip.1"] * projected


def settled(model: Primus, shapes: Mapping[str, tuple[int, ...]]) -> Primus:
    """`model` with version and `input_shape` of its weights, where its fields leave them open.

    Learnt positions show how many tokens there are, not how they lie; for their names and shapes any way does.
    """
    if model.version is None:
        stem = any(name.startswith("down_projection.stem.") for name in shapes)
        model = model.clone(version=2 if stem else 1)
    if model.input_shape is None and "eva.pos_embed" in shapes:
        tokens = shapes["eva.pos_embed"][1] - model.num_register_tokens
        x, *others = model.patch_embed_size
        model = model.clone(input_shape=(x * max(1, tokens), *others))
    return model


def _infer(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `Primus` that tensors under the original's names determine.

    Version 3 without the skips of its embedding is taken for version 2 where it has that one's channels.

    Raises:
        MismatchError: these are not the weights of a Primus.
    """
    try:
        hidden, width = tensors["eva.blocks.0.mlp.fc1_g.weight"].shape
        found = _embedding(tensors)
    except KeyError as missing:
        raise MismatchError(f"not the weights of a Primus: no {missing}.") from None
    ratio = 4 * 2 / 3
    blocks = {name.split(".")[2] for name in tensors if name.startswith("eva.blocks.")}
    registers = tensors.get("register_tokens")
    steps = [name for name in tensors if name.startswith("up_projection.decode.") and name.endswith(".bias")]
    found |= {
        "embed_dim": width,
        "eva_depth": len(blocks),
        "num_register_tokens": 0 if registers is None else registers.shape[1],
        "use_abs_pos_embed": "eva.pos_embed" in tensors,
        "qkv_bias": "eva.blocks.0.attn.q_proj.bias" in tensors,
        "mlp_ratio": ratio if int(width * ratio) == hidden else (hidden + 0.5) / width,
        "init_values": 0.1 if "eva.blocks.0.gamma_1" in tensors else None,
        "scale_attn_inner": "eva.blocks.0.attn.norm.weight" in tensors,
    }
    if steps:
        last = max(steps, key=lambda name: int(name.split(".")[2]))
        found["out_channels"] = len(tensors[last])
    return found


def _embedding(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Version, input channels, patch, and channels and depths of version 3."""
    where = "down_projection."
    if (proj := tensors.get(f"{where}proj.weight")) is not None:  # d c x y z
        return {"version": 1, "in_channels": proj.shape[1], "patch_embed_size": proj.shape[2:]}
    stem = tensors[f"{where}stem.blocks.0.conv1.conv.weight"]  # o c x y z
    widths, depths = [len(stem)], []
    while (first := f"{where}stages.{len(depths)}.blocks.") + "0.conv1.conv.weight" in tensors:
        widths.append(len(tensors[f"{first}0.conv1.conv.weight"]))
        depths.append(
            len({name.removeprefix(first).split(".")[0] for name in tensors if name.startswith(first)})
        )
    patch = (2 ** len(depths),) * 3
    found = {"version": 2, "in_channels": stem.shape[1], "patch_embed_size": patch}
    skips = f"{where}proj_to_tokens.0.weight" in tensors
    if skips or tuple(widths) != SECOND_CHANNELS or math.prod(depths) != 1:
        found |= {
            "version": 3,
            "ch_per_level": tuple(widths),
            "depth_per_level": tuple(depths),
            "add_skips": skips,
        }
    return found


TORCH = TorchNames(
    rules=_RULES,
    axes=_axes,
    buffers=_mask_token,
    copies=_copies,
    first=r"(.*?)down_projection\.(proj|stem\.blocks\.0\.conv1\.conv)\.weight",
    infer=_infer,
    hidden=("input_shape", "eva_numheads"),
)
