"""What the two U-Nets of nnU-Net's plans share: fields per stage, a decoder of transposed convolutions, PyTorch's names.

Both come from the package dynamic-network-architectures (DNA), whose classes keep most tensors under several names.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

from ukbob_jax.errors import MismatchError
from ukbob_jax.models import architecture, unet_fields
from ukbob_jax.models.activations import LEAKY, SLOPE
from ukbob_jax.models.architecture import Fields, Size
from ukbob_jax.models.kernels.norm import EPSILON
from ukbob_jax.models.unet import ConvStep, UNet
from ukbob_jax.models.unet_fields import PerStage

Tensors = Mapping[str, np.ndarray]

DECODER_RULES = (
    (r"^decoder_(\d+)\.block_(\d+)\.", r"decoder.stages.\1.convs.\2."),
    (r"^decoder_(\d+)\.upsample\.", r"decoder.transpconvs.\1."),
    (r"^head_(\d+)\.", r"decoder.seg_layers.\1."),
)
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_LAYERS = ("norm", "norm_epsilon", "activation", "slope", "dropout", "dropout_rate")  # fields of layers


class Block(NamedTuple):
    """A ConvDropoutNormReLU of the encoder."""

    prefix: str  # of its tensors
    bias: bool = False
    drops: bool = False  # whether it has a dropout where the network has one


class PlansUNet(UNet):
    """A U-Net as nnU-Net's plans describe it, but for its encoder. Names are those of the original's constructor.

    Args:
        n_stages: of the encoder, the bottleneck included.
        features_per_stage: channels; one number or one per stage.
        kernel_sizes: voxels, odd; one number, or per stage one number or one per axis. Kernels of two numbers make a
            network of slices. Axes are those of the array: of nnU-Net's arrays z y x.
        strides: voxels, as `kernel_sizes`; of the first convolution of each stage.
        n_conv_per_stage_decoder: convolutions of the decoder's steps, coarsest first; one number or one per step.
        conv_bias: biases of the convolutions, the transposed ones too; heads always have one.
        norm: "instance_affine", "instance" (no parameters), "batch" (running statistics in the collection `batch_stats`)
            or "none".
        norm_epsilon: added to the norm's variance.
        activation: "leaky_relu", "gelu", "gelu_tanh", "silu", "elu", "selu" or "mish".
        slope: of the leaky ReLU; 0 is ReLU, 1 leaves it out.
        dropout: behind convolutions (in a residual block behind the one with the strides): of whole "channels" or of
            single "voxels"; "" leaves it out.
        dropout_rate: share that training drops.
    """

    n_stages: int = 6
    features_per_stage: PerStage = (32, 64, 128, 256, 320, 320)
    kernel_sizes: PerStage = 3
    strides: PerStage = (1, 2, 2, 2, 2, 2)
    n_conv_per_stage_decoder: PerStage = 2
    conv_bias: bool = True
    norm: str = "instance_affine"
    norm_epsilon: float = EPSILON
    activation: str = LEAKY
    slope: float = SLOPE
    dropout: str = ""
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        """One value per stage, as tuples: a model must be hashable, since compiled programs are kept per model."""
        name = type(self).__name__
        unet_fields.check_stages(name, self.n_stages)
        rank = unet_fields.rank_of(self.kernel_sizes, self.strides)
        for field in ("kernel_sizes", "strides"):
            self.settle(field, functools.partial(unet_fields.each_size, rank=rank), self.n_stages)
        for field in ("features_per_stage", *self.counts()):
            self.settle(field, unet_fields.each, self.n_stages)
        self.settle("n_conv_per_stage_decoder", unet_fields.each, self.n_stages - 1)
        layers = {field: getattr(self, field) for field in _LAYERS}
        unet_fields.check(name, rank, self.kernel_sizes, **layers)
        super().__post_init__()

    @nn.nowrap
    def counts(self) -> tuple[str, ...]:
        """Fields that hold a number per stage of the encoder, beside `features_per_stage`."""
        raise NotImplementedError

    @nn.nowrap
    def conv_fields(self, stage: int) -> dict[str, Any]:
        """Fields of the `ConvNorm`s of one stage."""
        return {
            "features": self.features_per_stage[stage],
            "size": self.kernel_sizes[stage],
            "bias": self.conv_bias,
            "dtype": self.dtype,
            "epsilon": self.norm_epsilon,
            **{field: getattr(self, field) for field in _LAYERS if field != "norm_epsilon"},
        }

    @nn.nowrap
    def place_of_norm(self, drops: bool) -> int:
        """Where a ConvDropoutNormReLU has its norm in its list of layers; `drops`: whether it may have a dropout."""
        return 1 + (drops and bool(self.dropout))

    @nn.nowrap
    def decoder_steps(self) -> list[nn.Module]:  # noqa: D102 - as in UNet
        below = range(self.n_stages - 1, 0, -1)  # stages that the steps come from
        step = self.saving(ConvStep, 2)
        return [
            step(count, self.strides[stage], self.conv_fields(stage - 1))
            for stage, count in zip(below, self.n_conv_per_stage_decoder)
        ]

    @property
    def stage_strides(self) -> tuple[Size, ...]:  # noqa: D102 - as in UNet
        return self.strides

    @nn.nowrap
    def settle(self, field: str, each: Callable[..., Any], count: int) -> None:
        """Bring `field` to one value for each of `count` stages."""
        value = each(f"{type(self).__name__}: {field}", getattr(self, field), count)
        object.__setattr__(self, field, value)


def build(module: type[PlansUNet], fields: Fields) -> PlansUNet:
    """A network from its fields, or from `arch_kwargs` of nnU-Net's plans.json.

    Raises:
        ConfigError: a field is unknown, or has a value that the network does not have; names it.
    """
    return architecture.build_module(module, unet_fields.from_plans(module.__name__, fields))


def copies(model: PlansUNet, encoder: Sequence[Block]) -> dict[str, str]:
    """Further names of tensors in a state_dict -> first names."""
    decoder = [
        Block(f"decoder.stages.{step}.convs.{i}", model.conv_bias, drops=True)
        for step, count in enumerate(model.n_conv_per_stage_decoder)
        for i in range(count)
    ]
    found = {}
    for prefix, bias, drops in (*encoder, *decoder):
        for first, further in _leaves(model.norm, bias, model.place_of_norm(drops)):
            names = [f"{prefix}.{first}", f"{prefix}.{further}"]
            names += [f"decoder.{name}" for name in names] if prefix.startswith("encoder.") else []
            found |= {name: names[0] for name in names[1:]}
    return found


def _leaves(norm: str, bias: bool, place: int) -> Iterator[tuple[str, str]]:
    """Names of one ConvDropoutNormReLU's tensors, and those in its list `all_modules`."""
    for leaf in ("weight", "bias")[: 1 + bias]:
        yield f"conv.{leaf}", f"all_modules.0.{leaf}"
    affine = ("weight", "bias") if norm in ("instance_affine", "batch") else ()
    for leaf in (*affine, *(_STATISTICS if norm == "batch" else ())):
        yield f"norm.{leaf}", f"all_modules.{place}.{leaf}"


def infer(tensors: Tensors, stages: int, first: str, kernel: str, features: str) -> dict[str, Any]:
    """Fields of a `PlansUNet` that the tensors of a state_dict determine; `slope` is not among them.

    Args:
        tensors: by the first of their names.
        stages: of the encoder.
        first: prefix of the first convolution of all, with its norm.
        kernel: prefix of a convolution with the stage's kernel, `{}` for the stage.
        features: prefix of a convolution that gives the stage's features.
    Raises:
        MismatchError: a tensor is missing.
    """
    try:
        kernels = [tensors[f"{kernel.format(s)}.conv.weight"].shape[2:] for s in range(stages)]
        widths = [tensors[f"{features.format(s)}.conv.weight"].shape[0] for s in range(stages)]
        steps = range(stages - 1)
        ups = [tensors[f"decoder.transpconvs.{s}.weight"].shape[2:] for s in steps]  # coarsest first
        heads = [tensors[f"decoder.seg_layers.{s}.bias"].shape[0] for s in steps]
        channels = tensors[f"{first}.conv.weight"].shape[1]
    except KeyError as missing:
        raise MismatchError(f"not the weights of a U-Net of nnU-Net: no {missing}.") from None
    rank = len(kernels[0]) if kernels else 3
    batch, affine = (f"{first}.norm.{leaf}" in tensors for leaf in ("running_mean", "weight"))
    return {
        "in_channels": channels,
        "out_channels": heads[-1] if heads else 0,
        "n_stages": stages,
        "features_per_stage": tuple(widths),
        "kernel_sizes": tuple(map(tuple, kernels)),
        "strides": ((1,) * rank, *reversed(ups)),
        "n_conv_per_stage_decoder": tuple(count(tensors, f"decoder.stages.{s}.convs.") for s in steps),
        "conv_bias": f"{first}.conv.bias" in tensors,
        "norm": "batch" if batch else "instance_affine" if affine else "instance",
    }


def count(tensors: Tensors, prefix: str) -> int:
    """How many modules of a list have tensors whose names begin with `prefix` and their number."""
    found = (re.match(re.escape(prefix) + r"(\d+)\.", name) for name in tensors)
    return len({match[1] for match in found if match})
