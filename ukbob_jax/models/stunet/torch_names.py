"""What uni-medical/STU-Net's class calls our parameters, and what the tensors of a file say of it."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax.errors import MismatchError
from ukbob_jax.models.architecture import TorchNames

_RULES = (
    (r"^encoder_(\d+)\.block_", r"conv_blocks_context.\1."),
    (r"^decoder_(\d+)\.block_", r"conv_blocks_localization.\1."),
    (r"^decoder_(\d+)\.project\.", r"upsample_layers.\1.conv."),
    (r"^head_(\d+)\.", r"seg_outputs.\1."),
    (r"\.conv(\d)\.(conv|norm)\.", r".\2\1."),
    (r"\.shortcut\.", ".conv3."),
)


def infer(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `STUNet` that tensors under the original's names determine: all but the strides.

    Raises:
        MismatchError: these are not the weights of an STU-Net.
    """
    found = (re.match(r"conv_blocks_context\.(\d+)\.(\d+)\.conv1\.weight", name) for name in tensors)
    blocks = [(int(match[1]), int(match[2])) for match in found if match]
    stages = range(len({stage for stage, _ in blocks}))
    try:
        kernels = [tensors[f"conv_blocks_context.{stage}.0.conv1.weight"].shape for stage in stages]
        classes = tensors[f"seg_outputs.{len(stages) - 2}.bias"].shape[0]
    except KeyError as missing:
        raise MismatchError(f"not the weights of an STU-Net: no {missing}.") from None
    return {
        "in_channels": kernels[0][1],
        "out_channels": classes,
        "dims": tuple(shape[0] for shape in kernels),
        "depth": tuple(sum(at == stage for at, _ in blocks) for stage in stages),
        "conv_kernel_sizes": tuple(tuple(shape[2:]) for shape in kernels),
    }


TORCH = TorchNames(
    rules=_RULES,
    first=r"(.*?)conv_blocks_context\.0\.0\.conv1\.weight",
    infer=infer,
    hidden=("pool_op_kernel_sizes",),
)
