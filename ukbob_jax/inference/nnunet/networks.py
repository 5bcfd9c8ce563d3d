"""Which of our networks an nnU-Net trainer builds: from the plans' `architecture`, or from the trainer's own name.

In nnU-Net the trainer's class builds the network. Most trainers follow the plans; those of STU-Net, Primus and MedNeXt
build one size of their own. Trainers that are not known here are refused by name, since no file shows what they build.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ukbob_jax import advice
from ukbob_jax.errors import FileError
from ukbob_jax.models import architecture as architectures
from ukbob_jax.models.kernels.norm import EPSILON
from ukbob_jax.models.stunet.network import SIZES


class Network(NamedTuple):
    """A network of ours: `networks.build(name, in_channels, out_channels, **fields)`."""

    name: str
    fields: dict[str, Any]


# What follows "nnUNetTrainer" in the names of trainers that change training alone: length, loss, optimiser, augmentation.
_TRAINING_ONLY = "|".join(
    (
        *(r"\d+epochs?", r"\d+ep", r"\d+k", r"\d+en\d+", r"\d{3}", r"BS\d+", "V2"),
        *(
            "NoMirroring",
            "nomirroring",
            "onlyMirror01",
            "DA5",
            "NoDA",
            "DASegOrd0",
            "DAOrd0",
            "Segord0",
            "ord0",
        ),
        *(
            "noDummy2DDA",
            "CELoss",
            "DiceLoss",
            "DiceCELoss",
            "noSmooth",
            "Topk10Loss",
            "DiceTopK10Loss",
            "LS01",
        ),
        *(
            "CosAnneal",
            "warmup",
            "NoDeepSupervision",
            "VanillaAdam",
            "Adam",
            "Adan",
            "probabilisticOversampling",
        ),
        *("Benchmark", "noDataLoading", "SkeletonRecall", "MOSAIC", "QuarterLR"),
    )
)
_BATCH_NORM = re.compile(r"nnUNetTrainerBN")  # follows the plans but for the norm
_BY_PLANS = re.compile(rf"nnUNet_?Trainer(_?({_TRAINING_ONLY}))*")

# The last words of a class; nnU-Net too looks for it by these where the module has moved.
_CLASSES = {"PlainConvUNet": "plain_unet", "ResidualEncoderUNet": "resenc_unet"}
_COUNTS = {"plain_unet": "n_conv_per_stage", "resenc_unet": "n_blocks_per_stage"}
_DEFAULTS: dict[str, Any] = {"conv_bias": False, "norm_op": None, "nonlin": None}  # of these classes
_NO_FIELDS = ("deep_supervision",)  # of no weight in prediction
_NORM = {"eps": 1e-5, "affine": True}
_BATCH = {"norm": "batch", "norm_epsilon": EPSILON}  # our networks' words

_STUNET = re.compile(r"STUNetTrainer(?:_(small|base|large|huge))?(?:_ft)?")
_PRIMUS = re.compile(r"nnUNet_Primus(?:_|V([23]))([SBML])_Trainer(?:_BS8(?:_2e4)?)?")
_PRIMUS_SIZES = {"S": (396, 12, 6), "B": (792, 12, 12), "M": (864, 16, 12), "L": (1056, 24, 16)}
_MEDNEXT = re.compile(r"nnUNetTrainer(?:V2)?_MedNeXt_([SBML])_kernel([35])(?:_lr_\d+e_\d+)?")
_MEDNEXT_SIZES = {  # channels inside a block per channel, blocks per stage
    "S": (2, (2,) * 9),
    "B": ((2, 3, 4, 4, 4, 4, 4, 3, 2), (2,) * 9),
    "M": ((2, 3, 4, 4, 4, 4, 4, 3, 2), (3, 4, 4, 4, 4, 4, 4, 4, 3)),
    "L": ((3, 4, 8, 8, 8, 8, 8, 4, 3), (3, 4, 8, 8, 8, 8, 8, 4, 3)),
}


def of_trainer(trainer: str, configuration: Mapping[str, Any], where: str) -> Network:
    """The network that a trainer builds.

    Args:
        trainer: name of its class.
        configuration: of the plans, with what it inherits.
        where: file and configuration, for messages.
    Raises:
        FileError: no known trainer, or an architecture that is none of ours.
    """
    if _BY_PLANS.fullmatch(trainer):
        return of_architecture(_architecture(configuration, where), where)
    if _BATCH_NORM.fullmatch(trainer):
        plain = of_architecture(_architecture(configuration, where), where)
        return Network(plain.name, {**plain.fields, **_BATCH})
    if match := _STUNET.fullmatch(trainer):
        return _stunet(match[1] or "base", configuration, where)
    if match := _PRIMUS.fullmatch(trainer):
        return _primus(int(match[1] or 1), match[2], configuration)
    if match := _MEDNEXT.fullmatch(trainer):
        ratio, blocks = _MEDNEXT_SIZES[match[1]]
        kernel = int(match[2])
        fields = {"n_channels": 32, "exp_r": ratio, "kernel_size": kernel, "block_counts": blocks}
        return Network("mednext", {**fields, "do_res": True, "do_res_up_down": True})
    follows = advice.fix(" If it follows the plans, say so with {}.", "trainer", "nnUNetTrainer")
    raise FileError(
        f"{where}: trainer {trainer!r} is not known, and only its code says which network it builds.{follows}"
    )


def of_architecture(architecture: Mapping[str, Any], where: str) -> Network:
    """The network of an `architecture` as plans.json has it: `network_class_name` and `arch_kwargs`.

    Raises:
        FileError: a class, or the value of an argument, that is none of ours.
    """
    try:
        path, given = str(architecture["network_class_name"]), dict(architecture["arch_kwargs"])
        name = _CLASSES[path.rpartition(".")[2]]
    except (KeyError, TypeError, ValueError):
        raise FileError(
            f"{where}: architecture {architecture!r} is none of ours; expected {' or '.join(_CLASSES)}."
        ) from None
    needed = ("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", _COUNTS[name],
              "n_conv_per_stage_decoder")  # fmt: skip
    if missing := [key for key in needed if key not in given]:
        raise FileError(f"{where}: arch_kwargs lack {missing[0]!r}, which {path} needs.")
    off = [key for key, value in given.items() if key not in _DEFAULTS and value in (None, False)]
    fields = {key: value for key, value in {**_DEFAULTS, **given}.items() if key not in (*off, *_NO_FIELDS)}
    said, sizes = architectures.find(name), {key: fields[key] for key in (*needed, "conv_bias")}
    try:
        built, usual = (
            said.build({"in_channels": 1, "out_channels": 1, **given}) for given in (fields, sizes)
        )
    except (TypeError, ValueError) as error:  # a ConfigError among them
        raise FileError(f"{where}: arch_kwargs: {error}") from None
    values = {key: getattr(built, key) for key in said.fields(built) if key not in said.free}
    return Network(name, {k: v for k, v in values.items() if k in sizes or v != getattr(usual, k)})


def _architecture(configuration: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The `architecture` of a configuration; for plans before version 2.4 put together as nnU-Net does."""
    if "architecture" in configuration:
        return configuration["architecture"]
    old = ("UNet_class_name", "UNet_base_num_features", "unet_max_num_features", "n_conv_per_stage_encoder",
           "n_conv_per_stage_decoder", "conv_kernel_sizes", "pool_op_kernel_sizes", "patch_size")  # fmt: skip
    if missing := [key for key in old if key not in configuration]:
        raise FileError(
            f"{where}: neither architecture nor {missing[0]}; this is no nnU-Net v2 configuration."
        )
    kind, first, most, encoder, decoder, kernels, strides, patch = (configuration[key] for key in old)
    if kind not in _CLASSES:
        raise FileError(
            f"{where}: UNet_class_name {kind!r} is none of ours; expected {' or '.join(_CLASSES)}."
        )
    rank, stages = len(patch), len(encoder)
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(first * 2**i, most) for i in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{rank}d",
        "kernel_sizes": kernels,
        "strides": strides,
        _COUNTS[_CLASSES[kind]]: encoder,
        "n_conv_per_stage_decoder": decoder,
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d",
        "norm_op_kwargs": _NORM,
        "nonlin": "torch.nn.LeakyReLU",
    }
    return {"network_class_name": kind, "arch_kwargs": arguments}


def _stunet(size: str, configuration: Mapping[str, Any], where: str) -> Network:
    """STU-Net of one size; of the plans it takes the first five strides, filled with ones."""
    plain = of_architecture(_architecture(configuration, where), where)
    strides = (*plain.fields["strides"][1:6], *((1, 1, 1),) * 5)[:5]
    scale = SIZES[size[0].upper()]
    fields = {"pool_op_kernel_sizes": strides, "conv_kernel_sizes": ((3, 3, 3),) * 6}
    return Network("stunet", {**scale._asdict(), **fields})


def _primus(version: int, size: str, configuration: Mapping[str, Any]) -> Network:
    """Primus of one size for the plans' patch."""
    width, depth, heads = _PRIMUS_SIZES[size]
    fields = {
        **{"version": version, "embed_dim": width, "eva_depth": depth, "eva_numheads": heads},
        **{"patch_embed_size": (8, 8, 8), "input_shape": tuple(configuration["patch_size"])},
        **{"init_values": 0.1, "scale_attn_inner": True, "drop_path_rate": 0.2},
    }
    return Network("primus", fields)
