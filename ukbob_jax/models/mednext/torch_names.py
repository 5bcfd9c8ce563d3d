"""What MIC-DKFZ/MedNeXt's class calls our parameters, and what the tensors of a checkpoint say of the network.

Halvings, doublings and heads have the names of ours. Kernels of the doublings and heads are those of transposed
convolutions; a depthwise kernel, (channels, 1, ...), looks the same either way.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax.errors import MismatchError
from ukbob_jax.models.architecture import Path, TorchNames, conv_axes
from ukbob_jax.models.mednext.network import LEVELS

_RULES = (
    (r"^(enc_block_\d|dec_block_\d|bottleneck)_(\d+)\.", r"\1.\2."),
    (r"^(out_\d)\.", r"\1.conv_out."),
)


def _axes(path: Path, ndim: int) -> tuple[int, ...]:
    """Axes of PyTorch's arrays in the order of ours."""
    if path[-1].startswith("grn_"):  # (1, channels, 1, ...)
        return (0, *range(2, ndim), 1)
    doubling = path[0].startswith("up_") and path[-2] == "res_conv"
    if path[-1] == "kernel" and (doubling or path[0].startswith("out_")):  # (in, out, ...)
        return (*range(2, ndim), 0, 1)
    return conv_axes(path, ndim)


def _infer(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `MedNeXt` that tensors under the original's names determine.

    Raises:
        MismatchError: these are not the weights of a MedNeXt.
    """
    try:
        width, channels, *space = tensors["stem.weight"].shape
        blocks = [f"down_{i}" for i in range(LEVELS)] + [f"up_{i}" for i in reversed(range(LEVELS))]
        inside = [tensors[f"{block}.conv2.weight"].shape[:2] for block in blocks]
        kernels = {
            "enc_kernel_size": tensors["down_0.conv1.weight"].shape[-1],
            "dec_kernel_size": tensors["up_0.conv1.weight"].shape[-1],
        }
    except KeyError as missing:
        raise MismatchError(f"not the weights of a MedNeXt: no {missing}.") from None
    first = tensors.get("enc_block_0.0.conv2.weight")
    ratios = [wide // narrow for wide, narrow in inside]
    stages = [f"enc_block_{i}" for i in range(LEVELS)] + ["bottleneck"]
    stages += [f"dec_block_{i}" for i in reversed(range(LEVELS))]
    found = {
        "in_channels": channels,
        "n_channels": width,
        "exp_r": (len(first) // width if first is not None else ratios[0], *ratios),
        "kernel_size": None,
        **kernels,
        "do_res_up_down": "down_0.res_conv.weight" in tensors,
        "block_counts": tuple(_count(tensors, stage) for stage in stages),
        "dim": f"{len(space)}d",
        "grn": "up_0.grn_gamma" in tensors,
        "deep_supervision": sum(f"out_{i}.conv_out.weight" in tensors for i in range(1, LEVELS + 1)),
    }
    if "out_0.conv_out.bias" in tensors:
        found["out_channels"] = len(tensors["out_0.conv_out.bias"])
    return found


def _count(tensors: Mapping[str, np.ndarray], stage: str) -> int:
    return len({name.split(".")[1] for name in tensors if name.startswith(f"{stage}.")})


TORCH = TorchNames(
    rules=_RULES,
    axes=_axes,
    first=r"(.*?)stem\.weight",
    infer=_infer,
    hidden=("do_res",),
)
