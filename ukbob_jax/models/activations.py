"""Activations of the U-Nets of the nnU-Net family, by our names and by those of PyTorch's classes."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import nn

from ukbob_jax.models.kernels.norm import shift_and_activate

LEAKY = "leaky_relu"  # with a slope of its own: 0 is ReLU, 1 leaves it out
SLOPE = 0.01  # PyTorch's default of the leaky ReLU
_FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "silu": nn.silu,
    "elu": nn.elu,
    "selu": nn.selu,
    "mish": nn.mish,
}
ACTIVATIONS = (LEAKY, *_FUNCTIONS)
_TORCH = {"SiLU": "silu", "ELU": "elu", "SELU": "selu", "Mish": "mish"}  # taken without options


def activate(x: jax.Array, name: str, slope: float) -> jax.Array:
    """`x` (any shape and float type) through the activation `name` of `ACTIVATIONS`; `slope` is the leaky ReLU's."""
    if name != LEAKY:
        return _FUNCTIONS[name](x)
    return shift_and_activate(x, None, None, slope=slope) if slope else nn.relu(x)


def of_torch(kind: str | None, options: Mapping[str, Any]) -> tuple[str, float] | None:
    """Our name and slope of PyTorch's class `kind`, None being no activation; None where it is none of ours."""
    options = {key: value for key, value in options.items() if key != "inplace"}
    if kind is None:
        return LEAKY, 1.0
    if kind == "LeakyReLU" and set(options) <= {"negative_slope"}:
        return LEAKY, float(options.get("negative_slope", SLOPE))
    if kind == "GELU" and options.get("approximate", "none") in ("none", "tanh"):
        exact = options.pop("approximate", "none") == "none"
        return None if options else ("gelu" if exact else "gelu_tanh", SLOPE)
    if options:
        return None
    return (LEAKY, 0.0) if kind == "ReLU" else (_TORCH[kind], SLOPE) if kind in _TORCH else None
