"""Fields of the U-Nets of the nnU-Net family: one value for all stages or one for each, and nnU-Net's names of layers.

`plans.json` of nnU-Net names layers by their PyTorch classes (`norm_op`, `nonlin`, ...); `from_plans` says the same in
our words, and refuses by name what our networks do not have.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ukbob_jax.errors import ConfigError
from ukbob_jax.models.activations import ACTIVATIONS, LEAKY, SLOPE, of_torch
from ukbob_jax.models.architecture import Size
from ukbob_jax.models.kernels.norm import EPSILON

PerStage = Any  # given as one number for all stages, or one per stage; kept as a tuple with one per stage
NORMS = ("instance_affine", "instance", "batch", "none")
DROPOUTS = ("", "channels", "voxels")
# Arguments of theirs that our modules do not have, since another field says it, or since only one value is right.
_OPS = ("conv_op", "norm_op", "norm_op_kwargs", "nonlin", "nonlin_kwargs", "dropout_op", "dropout_op_kwargs")
_DROPOUTS = {"Dropout": "voxels", "Dropout2d": "channels", "Dropout3d": "channels"}
_NORM_OPTIONS = {"eps": EPSILON, "affine": True}  # what nnU-Net writes into every plans.json


def each(where: str, value: Any, count: int) -> tuple[int, ...]:
    """One whole number from 1 on for each of `count` stages; a number stands for all.

    Args:
        where: the field, for messages.
    Raises:
        ConfigError: another number of entries, or one that is no such number.
    """
    found: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple) else (value,) * count
    if len(found) != count:
        raise ConfigError(
            f"{where} has {len(found)} entries, expected {count}: one per stage, or one number."
        )
    if not all(isinstance(n, int) and n >= 1 for n in found):
        raise ConfigError(f"{where} {value!r} must be whole numbers from 1 on.")
    return found


def each_size(where: str, value: Any, count: int, rank: int) -> tuple[Size, ...]:
    """Voxels along each of `rank` axes for each of `count` stages; numbers stand for all axes, or for all stages.

    Raises:
        ConfigError: another number of entries, or one that is no whole number from 1 on.
    """
    if isinstance(value, int):
        value = (value,) * count
    if len(value) != count:
        raise ConfigError(
            f"{where} has {len(value)} entries, expected {count}: one per stage, or one number."
        )
    return tuple(each(f"{where}[{stage}]", size, rank) for stage, size in enumerate(value))


def rank_of(*sizes: Any) -> int:
    """Axes of the network: the length of the first size that has several numbers; 3 where none has."""
    values = [size for value in sizes if not isinstance(value, int) for size in value]
    return next((len(size) for size in values if not isinstance(size, int)), 3)


def check_stages(name: str, stages: Any, field: str = "n_stages") -> None:
    """Refuse a U without a decoder.

    Raises:
        ConfigError: fewer than 2 stages, or no whole number.
    """
    if not isinstance(stages, int) or stages < 2:
        raise ConfigError(f"{name}: {field} {stages!r} must be a whole number of stages from 2 on.")


def check(
    name: str,
    rank: int,
    kernels: Sequence[Size],
    *,
    norm: str = NORMS[0],
    norm_epsilon: float = EPSILON,
    activation: str = LEAKY,
    slope: float = SLOPE,
    dropout: str = DROPOUTS[0],
    dropout_rate: float = 0.0,
) -> None:
    """Refuse fields that no network of this family can have.

    Raises:
        ConfigError: names the field of the network `name`.
    """
    wrong = None
    if rank not in (2, 3):
        wrong = f"kernel_sizes {tuple(kernels)} must have 2 or 3 numbers per stage"
    elif any(k % 2 == 0 for kernel in kernels for k in kernel):
        wrong = f"kernel_sizes {tuple(kernels)} must be odd"
    elif norm not in NORMS:
        wrong = f"norm {norm!r} must be one of {', '.join(NORMS)}"
    elif not norm_epsilon > 0:
        wrong = f"norm_epsilon {norm_epsilon} must be more than 0"
    elif activation not in ACTIVATIONS:
        wrong = f"activation {activation!r} must be one of {', '.join(ACTIVATIONS)}"
    elif not 0 <= slope <= 1:
        wrong = f"slope {slope} must be from 0 (ReLU) to 1 (nothing)"
    elif dropout not in DROPOUTS:
        wrong = f"dropout {dropout!r} must be one of {', '.join(map(repr, DROPOUTS))}"
    elif not 0 <= dropout_rate <= 1 or (dropout_rate and not dropout):
        wrong = f"dropout_rate {dropout_rate} must be from 0 to 1, and 0 where dropout is ''"
    if wrong:
        raise ConfigError(f"{name}: {wrong}.")


def from_plans(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with the arguments that nnU-Net's plans.json has for layers in our words; others stay as they are.

    Args:
        name: of the network, for messages.
        fields: such as `arch_kwargs` of plans.json: classes by their name, with or without the module path.
    Raises:
        ConfigError: names the argument whose value our networks do not have.
    """
    given = {key: fields[key] for key in _OPS if key in fields}
    found = {key: value for key, value in fields.items() if key not in _OPS}
    if found.get("nonlin_first") in (False, None):
        found.pop("nonlin_first", None)  # an argument of one of the two networks
    if "conv_op" in given:
        rank = {"Conv2d": 2, "Conv3d": 3}.get(last_name(given["conv_op"]))
        if rank is None:
            raise _refusal(name, "conv_op", given["conv_op"], "supported: Conv2d, Conv3d")
        found |= _sized(name, found, rank)
    if "norm_op" in given:
        axes = {last_name(given[key])[-2:] for key in ("conv_op", "norm_op") if given.get(key) is not None}
        if {"2d", "3d"} <= axes:
            raise _refusal(name, "norm_op", given["norm_op"], f"conv_op is {given['conv_op']!r}")
        found |= _norm(name, given["norm_op"], given.get("norm_op_kwargs", _NORM_OPTIONS) or {})
    if "nonlin" in given:
        found |= _activation(name, given["nonlin"], given.get("nonlin_kwargs") or {})
    if given.get("dropout_op") is not None:
        found |= _dropout(name, given["dropout_op"], given.get("dropout_op_kwargs") or {})
    return found


def _sized(name: str, fields: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Kernels and strides with as many numbers as the convolutions have axes: a number says it for every axis."""
    found: dict[str, Any] = {}
    for key in ("kernel_sizes", "strides"):
        value = fields.get(key, ())
        stages = int(fields.get("n_stages", 0))
        sizes = (value,) * stages if isinstance(value, int) else tuple(value)
        found[key] = tuple((size,) * rank if isinstance(size, int) else tuple(size) for size in sizes)
        if any(len(size) != rank for size in found[key]):
            raise ConfigError(f"{name}: {key} {found[key]} does not fit conv_op with {rank} axes.")
    return {key: sizes for key, sizes in found.items() if sizes}


def _norm(name: str, norm: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    kind = last_name(norm)
    if norm is None:
        return {"norm": "none"}
    if kind not in ("InstanceNorm2d", "InstanceNorm3d", "BatchNorm2d", "BatchNorm3d"):
        raise _refusal(
            name, "norm_op", norm, "supported: InstanceNorm2d, InstanceNorm3d, BatchNorm2d, BatchNorm3d"
        )
    batch = kind.startswith("Batch")
    affine = options.get("affine", batch)  # PyTorch's defaults
    right = {"momentum": (0.1,), "track_running_stats": (batch,), "affine": (True, batch)}
    for key, value in options.items():
        if key != "eps" and value not in right.get(key, ()):
            raise _refusal(
                name, f"norm_op_kwargs.{key}", value, f"{kind} is supported with {right.get(key, 'none')}"
            )
    found: dict[str, Any] = {"norm": "batch" if batch else "instance_affine" if affine else "instance"}
    epsilon = float(options.get("eps", EPSILON))
    return found if epsilon == EPSILON else {**found, "norm_epsilon": epsilon}


def _activation(name: str, nonlin: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    found = of_torch(last_name(nonlin) if nonlin is not None else None, options)
    if found is None:
        words = "supported: LeakyReLU with its slope, GELU with approximate, ReLU, SiLU, ELU, SELU and Mish without"
        raise _refusal(name, "nonlin", nonlin, f"{words} options, not {dict(options)}")
    kind, slope = found
    return {"slope": slope} if kind == LEAKY else {"activation": kind}


def _dropout(name: str, dropout: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    kind = _DROPOUTS.get(last_name(dropout))
    if kind is None or not set(options) <= {"p", "inplace"}:
        words = f"supported: {', '.join(_DROPOUTS)} with p, not {dict(options)}"
        raise _refusal(name, "dropout_op", dropout, words)
    return {"dropout": kind, "dropout_rate": float(options.get("p", 0.5))}


def last_name(path: Any) -> str:
    """The name of a class from its path, such as `torch.nn.LeakyReLU`."""
    return str(getattr(path, "__name__", path)).rpartition(".")[2]


def _refusal(name: str, key: str, value: Any, reason: str) -> ConfigError:
    return ConfigError(f"{name}: {key} {value!r} is not one of our layers; {reason}.")
