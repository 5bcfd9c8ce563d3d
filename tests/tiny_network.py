"""A network in one file, as a user would bring their own: two scales of convolutions with affine instance norms.

Its PyTorch class is `TinyTorch` in `tests/models/test_architecture.py`; the fields share nothing with other networks.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture, Size, TorchNames
from ukbob_jax.models.blocks import Conv, Norm


class Tiny(nn.Module):
    """b x y z c to logits b x y z k; the coarse scale is at half the size along y and z."""

    in_channels: int
    out_channels: int
    width: int = 4
    shake_rate: float = 0.0
    deep_supervision: int = 0  # 1: logits of the coarse scale too
    dtype: Any = jnp.float32

    def setup(self) -> None:
        conv = functools.partial(Conv, size=3, bias=True, dtype=self.dtype)
        self.fine = conv(self.width)
        self.fine_norm = Norm("instance_affine")
        self.coarse = conv(2 * self.width)
        self.coarse_norm = Norm("instance_affine")
        self.head = Conv(self.out_channels, size=1, bias=True)
        self.aux = [Conv(self.out_channels, size=1, bias=True) for _ in range(self.deep_supervision)]

    def hidden(self, x: jax.Array, *, train: bool = False) -> list[jax.Array]:
        fine = nn.leaky_relu(self.fine_norm(self.fine(x)), 0.01)
        pooled = nn.avg_pool(fine, (1, 2, 2), (1, 2, 2), ((0, 0), (0, x.shape[2] % 2), (0, x.shape[3] % 2)))
        return [fine, nn.leaky_relu(self.coarse_norm(self.coarse(pooled)), 0.01)]

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array | list[jax.Array]:
        fine, coarse = self.hidden(x)
        if train and self.shake_rate:
            fine = fine * (
                1 + self.shake_rate * jax.random.normal(self.make_rng("dropout"), fine.shape[:1])[:, None]
            )
        up = coarse.repeat(2, 2).repeat(2, 3)[:, :, : x.shape[2], : x.shape[3]]
        logits = self.head(jnp.concatenate([fine, up], -1))
        if not self.deep_supervision or not (train or self.is_initializing()):
            return logits
        return [logits, *(head(coarse) for head in self.aux)]


def _strides(model: Tiny) -> tuple[Size, ...]:
    return ((1, 1, 1), (1, 2, 2))[: model.deep_supervision + 1]


def _axes(path: tuple[str, ...], ndim: int) -> tuple[int, ...]:
    """PyTorch kernels of this network are (out, in, z, y, x)."""
    return (4, 3, 2, 1, 0) if path[-1] == "kernel" else tuple(range(ndim))


def _infer(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    width, channels = tensors["backbone.fine.weight"].shape[:2]
    return {"in_channels": channels, "out_channels": len(tensors["seg.bias"]), "width": width}


ARCHITECTURE = Architecture(
    name=__name__,
    build=functools.partial(architecture.build_module, Tiny),
    fields=architecture.module_fields,
    multiple=lambda model: (1, 2, 2),
    strides=_strides,
    stages=((r"^fine", 0), (r"^coarse", 1), (r"^(head|aux)", 2)),
    parts={"stem": r"^fine/kernel$", "encoder": r"^(fine|coarse)", "head": r"^(head|aux_\d+)/"},
    features="hidden",
    torch=TorchNames(
        rules=((r"_norm\.", ".norm."), (r"^(fine|coarse)\.", r"backbone.\1."), (r"^head\.", "seg.")),
        axes=_axes,
        auxiliary=r"^aux_",
        copies=lambda model: {"fine_again.weight": "backbone.fine.weight"},
        aliases=((r"^stem\.", "backbone.fine."),),
        infer=_infer,
    ),
    free=(*architecture.FREE, "shake_rate"),
)
