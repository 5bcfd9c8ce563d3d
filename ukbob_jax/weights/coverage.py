"""How far a set of named tensors covers a model, and what may be made to fit on request.

Names are those of the network's PyTorch class (`tensors.py`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.weights.tensors import ModelTensor, expected, torch_names


class Report(NamedTuple):
    """Which tensors of a model a checkpoint gives. `str(report)` is for people."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]  # in the model, not in the checkpoint
    unexpected: tuple[str, ...]  # in the checkpoint, not in the model
    reshaped: dict[str, str]  # in both, but of another shape, type or window: how they differ
    new: tuple[str, ...] = ()  # missing or reshaped, and allowed to start afresh
    averaged: tuple[str, ...] = ()  # made for another number of input channels, averaged on request
    left_out: tuple[str, ...] = ()  # in the checkpoint: dropped on request, or heads of pre-training tasks

    @property
    def complete(self) -> bool:
        """Nothing missing, unexpected or reshaped but what was allowed."""
        return not (self.missing or self.unexpected or self.reshaped)

    def problems(self) -> str:
        """Every tensor that stands in the way of loading, on one line."""
        parts = []
        for what, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                parts.append(f"{len(names)} {what}: {', '.join(names)}")
        if self.reshaped:
            pairs = ", ".join(f"{name} ({how})" for name, how in self.reshaped.items())
            parts.append(f"{len(self.reshaped)} reshaped: {pairs}")
        return "; ".join(parts)

    def __str__(self) -> str:
        lines = [f"matched: {len(self.matched)}"]
        for field in ("missing", "unexpected", "new", "averaged", "left_out"):
            names = getattr(self, field)
            lines.append(
                f"{field.replace('_', ' ')}: {len(names)}" + "".join(f"\n  {name}" for name in names)
            )
        pairs = "".join(f"\n  {name}: {how}" for name, how in self.reshaped.items())
        return "\n".join([*lines, f"reshaped: {len(self.reshaped)}{pairs}"])


def part(model: nn.Module, name: str) -> tuple[str, ...]:
    """The tensors of one part of `model`: "stem", "encoder", "decoder" or "head".

    Raises:
        ConfigError: the network's architecture does not say which they are.
    """
    said = architecture.of(model)
    if name not in said.parts:
        known = ", ".join(said.parts) or "none"
        raise ConfigError(f"network {said.name!r} has no part {name!r}; there are: {known}.")
    pattern = re.compile(said.parts[name])
    return tuple(t.name for t in expected(model).values() if pattern.search("/".join(t.path)))


def beside_encoder(model: nn.Module) -> set[str]:
    """The tensors of `model` that are not its encoder's."""
    return set(expected(model)) - set(part(model, "encoder"))


def without_copies(
    tensors: Mapping[str, np.ndarray], model: nn.Module
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """`tensors` with each once, under its first name, and further names whose arrays differ from it: name -> how."""
    once, differing = dict(tensors), {}
    for further, first in torch_names(model).copies(model).items():
        if further not in once:
            continue
        copy = once.pop(further)
        if not np.array_equal(once.setdefault(first, copy), copy, equal_nan=True):
            differing[further] = f"differs from {first}, of which it is a copy"
    return once, differing


def compare(tensors: Mapping[str, np.ndarray], model: nn.Module) -> Report:
    """What `tensors` give of `model`. Its buffers may be absent, but must agree; what it never reads is passed over."""
    want, buffers = expected(model), torch_names(model).buffers(model)
    matched, reshaped = [], {}
    for name, tensor in want.items():
        if name in tensors:
            how = _difference(tensors[name], tensor)
            if how:
                reshaped[name] = how
            else:
                matched.append(name)
    for name, index in buffers.items():
        if name in tensors and not np.array_equal(tensors[name], index):
            reshaped[name] = "the table of another model"
    missing = tuple(name for name in want if name not in tensors)
    known = {*want, *buffers, *torch_names(model).unused(model)}
    unexpected = tuple(name for name in tensors if name not in known)
    return Report(tuple(matched), missing, unexpected, reshaped)


def _difference(array: np.ndarray, tensor: ModelTensor) -> str:
    if tuple(array.shape) != tensor.torch_shape:
        return f"shape {tuple(array.shape)}, the model has {tensor.torch_shape}"
    if tensor.path[-1] != "count" and not jnp.issubdtype(array.dtype, jnp.floating):
        return f"{array.dtype.name}, no floating-point type"
    return ""


def adapt_channels_and_head(
    tensors: Mapping[str, np.ndarray], model: nn.Module, head: str, stem: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[str, ...]]:
    """`tensors` without the parts to start afresh, and with the stem averaged, as asked.

    Args:
        tensors: by the network's names.
        model: whose shapes to meet.
        head: "match", or "new" for a fresh head.
        stem: "match", "new", or "average": every input channel gets the sum over the old ones divided by the number
            of new ones, so that equal channels give the answer one channel gave.
    Returns:
        The tensors; the names that may now be missing; the names that were averaged.
    Raises:
        ConfigError: the architecture does not say which tensors are its head or stem.
    """
    asked = {"head": head, "stem": stem}
    fresh = tuple(name for where, how in asked.items() if how == "new" for name in part(model, where))
    kept = {name: array for name, array in tensors.items() if name not in fresh}
    averaged = []
    for name in part(model, "stem") if stem == "average" else ():
        want = expected(model)[name]
        if name not in kept or len(want.shape) < 2 or kept[name].ndim != len(want.shape):
            continue
        axis = want.axes[-2]  # our kernels have their input channels last but one
        if kept[name].shape[axis] != want.torch_shape[axis]:
            kept[name] = _average_channels(kept[name], axis, want.torch_shape[axis])
            averaged.append(name)
    return kept, fresh, tuple(averaged)


def expression(pattern: str, option: str) -> re.Pattern[str]:
    """`pattern` compiled.

    Raises:
        ConfigError: it is no regular expression; `option` is where it was given.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{option}={pattern!r} is no regular expression: {error}.") from None


def _average_channels(kernel: np.ndarray, axis: int, channels: int) -> np.ndarray:
    total = kernel.astype(np.float32).sum(axis, keepdims=True)
    return np.repeat(total / channels, channels, axis=axis)


def may_be_new(model: nn.Module, new: str | Sequence[str]) -> Callable[[str], object]:
    """Whether a tensor may start afresh: one whose name the expression `new` finds, or of the parts that `new` lists.

    Raises:
        ConfigError: no regular expression, or no such part.
    """
    if isinstance(new, str):
        return expression(new, "new").search if new else lambda name: False
    return {name for where in new for name in part(model, where)}.__contains__


def mark_reinitialised(report: Report, may: Callable[[str], object]) -> Report:
    """`report` with the missing and reshaped tensors that `may` allows moved to `new`."""
    new = tuple(name for name in (*report.missing, *report.reshaped) if may(name))
    return report._replace(
        missing=tuple(name for name in report.missing if name not in new),
        reshaped={name: how for name, how in report.reshaped.items() if name not in new},
        new=new,
    )
