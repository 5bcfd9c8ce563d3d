"""How far a set of named tensors covers a model, and what may be made to fit on request.

Names are MONAI's (`torch_names.py`).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ukbob_jax.errors import ConfigError
from ukbob_jax.models.swin_unetr import torch_names
from ukbob_jax.models.swin_unetr.network import SwinUNETR

HEAD = ("out.conv.conv.weight", "out.conv.conv.bias")
STEM = (
    "swinViT.patch_embed.proj.weight",
    "encoder1.layer.conv1.conv.weight",
    "encoder1.layer.conv3.conv.weight",
)


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


def expected(model: SwinUNETR) -> dict[str, torch_names.Tensor]:
    """Every parameter and running statistic of `model`, by MONAI's name."""
    found = torch_names.tensors(model) + torch_names.tensors(model, "batch_stats")
    return {tensor.name: tensor for tensor in found}


def compare(tensors: Mapping[str, np.ndarray], model: SwinUNETR) -> Report:
    """What `tensors` give of `model`. The integer tables of relative positions may be absent, but must agree."""
    want, buffers = expected(model), torch_names.index_buffers(model)
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
            reshaped[name] = "made for another window size"
    missing = tuple(name for name in want if name not in tensors)
    unexpected = tuple(name for name in tensors if name not in want and name not in buffers)
    return Report(tuple(matched), missing, unexpected, reshaped)


def _difference(array: np.ndarray, tensor: torch_names.Tensor) -> str:
    if tuple(array.shape) != tensor.monai_shape:
        return f"shape {tuple(array.shape)}, the model has {tensor.monai_shape}"
    if tensor.path[-1] != "count" and not jnp.issubdtype(array.dtype, jnp.floating):
        return f"{array.dtype.name}, no floating-point type"
    return ""


def fit(
    tensors: Mapping[str, np.ndarray], model: SwinUNETR, head: str, stem: str
) -> tuple[dict[str, np.ndarray], str, tuple[str, ...]]:
    """`tensors` without the parts to start afresh, and with the stem averaged, as asked.

    Args:
        tensors: by MONAI's names.
        model: whose shapes to meet.
        head: "match", or "new" for a fresh head.
        stem: "match", "new", or "average": every input channel gets the sum over the old ones divided by the number
            of new ones, so that equal channels give the answer one channel gave.
    Returns:
        The tensors; a regular expression for the names that may now be missing; the names that were averaged.
    """
    fresh = (HEAD if head == "new" else ()) + (STEM if stem == "new" else ())
    kept = {name: array for name, array in tensors.items() if name not in fresh}
    averaged = []
    if stem == "average":
        want = expected(model)
        for name in STEM:
            if name in kept and name in want and kept[name].shape[1:2] != want[name].monai_shape[1:2]:
                kept[name] = _average_channels(kept[name], want[name].monai_shape[1])
                averaged.append(name)
    return kept, "|".join(f"^{re.escape(name)}$" for name in fresh), tuple(averaged)


def expression(pattern: str, option: str) -> re.Pattern[str]:
    """`pattern` compiled.

    Raises:
        ConfigError: it is no regular expression; `option` is where it was given.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{option}={pattern!r} is no regular expression: {error}.") from None


def _average_channels(kernel: np.ndarray, channels: int) -> np.ndarray:  # o i x y z
    total = kernel.astype(np.float32).sum(1, keepdims=True)
    return np.repeat(total / channels, channels, axis=1)


def allow_new(report: Report, pattern: str) -> Report:
    """`report` with the missing and reshaped tensors that `pattern` finds moved to `new`.

    Raises:
        ConfigError: `pattern` is no regular expression.
    """
    if not pattern:
        return report
    may = expression(pattern, "new").search
    new = tuple(name for name in (*report.missing, *report.reshaped) if may(name))
    return report._replace(
        missing=tuple(name for name in report.missing if name not in new),
        reshaped={name: how for name, how in report.reshaped.items() if name not in new},
        new=new,
    )
