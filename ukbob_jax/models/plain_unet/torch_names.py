"""What dynamic-network-architectures' PlainConvUNet calls our parameters, and what the tensors of a file say of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax.models import plans_unet
from ukbob_jax.models.architecture import TorchNames
from ukbob_jax.models.plain_unet.network import PlainUNet
from ukbob_jax.models.plans_unet import Block

_RULES = ((r"^encoder_(\d+)\.block_(\d+)\.", r"encoder.stages.\1.0.convs.\2."), *plans_unet.DECODER_RULES)


def copies(model: PlainUNet) -> dict[str, str]:
    """Further names of tensors in a state_dict -> first names."""
    blocks = [
        Block(f"encoder.stages.{stage}.0.convs.{i}", model.conv_bias, drops=True)
        for stage, n in enumerate(model.n_conv_per_stage)
        for i in range(n)
    ]
    return plans_unet.copies(model, blocks)


def infer(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `PlainUNet` that tensors under DNA's names determine; strides of the first stage are taken for 1.

    Raises:
        MismatchError: these are not the weights of such a network.
    """
    stages = plans_unet.count(tensors, "encoder.stages.")
    first = "encoder.stages.0.0.convs.0"
    found = plans_unet.infer(tensors, stages, first, *("encoder.stages.{}.0.convs.0",) * 2)
    counts = tuple(plans_unet.count(tensors, f"encoder.stages.{s}.0.convs.") for s in range(stages))
    return {**found, "n_conv_per_stage": counts}


TORCH = TorchNames(
    rules=_RULES,
    copies=copies,
    first=r"(.*?)(?<!decoder\.)encoder\.stages\.0\.0\.convs\.0\.conv\.weight",
    infer=infer,
)
