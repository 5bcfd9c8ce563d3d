"""What dynamic-network-architectures' ResidualEncoderUNet calls our parameters, and what the tensors of a file say."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax.models import plans_unet
from ukbob_jax.models.architecture import TorchNames
from ukbob_jax.models.plans_unet import Block
from ukbob_jax.models.resenc_unet.network import ResEncUNet

_RULES = (
    (r"^stem\.block_(\d+)\.", r"encoder.stem.convs.\1."),
    (r"^encoder_(\d+)\.block_(\d+)\.skip_(\d)\.", r"encoder.stages.\1.blocks.\2.skip.\3."),
    (r"^encoder_(\d+)\.block_(\d+)\.", r"encoder.stages.\1.blocks.\2."),
    *plans_unet.DECODER_RULES,
)


def copies(model: ResEncUNet) -> dict[str, str]:
    """Further names of tensors in a state_dict -> first names."""
    found = [Block("encoder.stem.convs.0", model.conv_bias, drops=True)]
    convs, strided = (2, 1) if model.bottleneck_channels is None else (3, 2)
    before = model.stem_channels
    for stage, (count, strides) in enumerate(zip(model.n_blocks_per_stage, model.strides)):
        blocks = [f"encoder.stages.{stage}.blocks.{i}" for i in range(count)]
        found += [
            Block(f"{block}.conv{n}", model.conv_bias, drops=n == strided)
            for block in blocks
            for n in range(1, convs + 1)
        ]
        if before != (before := model.features_per_stage[stage]):
            found.append(Block(f"{blocks[0]}.skip.{int(set(strides) != {1})}"))
    return plans_unet.copies(model, found)


def infer(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of `ResEncUNet` that tensors under DNA's names determine; strides of the first stage are taken for 1.

    Raises:
        MismatchError: these are not the weights of such a network.
    """
    stages = plans_unet.count(tensors, "encoder.stages.")
    narrow = "encoder.stages.0.blocks.0.conv3.conv.weight" in tensors
    block = "encoder.stages.{}.blocks.0."
    kernel, features = (block + name for name in (("conv2", "conv3") if narrow else ("conv1", "conv1")))
    found = plans_unet.infer(tensors, stages, "encoder.stem.convs.0", kernel, features)
    found |= {
        "n_blocks_per_stage": tuple(
            plans_unet.count(tensors, f"encoder.stages.{s}.blocks.") for s in range(stages)
        ),
        "stem_channels": len(tensors["encoder.stem.convs.0.conv.weight"]),
    }
    if narrow:
        found["block"] = "BottleneckD"
        found["bottleneck_channels"] = tuple(
            len(tensors[f"{block.format(s)}conv1.conv.weight"]) for s in range(stages)
        )
    return found


TORCH = TorchNames(
    rules=_RULES,
    copies=copies,
    first=r"(.*?)(?<!decoder\.)encoder\.stem\.convs\.0\.conv\.weight",
    infer=infer,
)
