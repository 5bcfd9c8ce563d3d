"""STU-Net (Huang et al. 2023): a residual U-Net that scales from 14 million to 1.5 billion parameters.

The numbers equal those of uni-medical/STU-Net's class with the same weights, see `tests/models/stunet/`. Upsampling has no
weights of its own, so that weights transfer to other strides.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture, unet_fields
from ukbob_jax.models.architecture import Size
from ukbob_jax.models.blocks import MAPS, Conv
from ukbob_jax.models.kernels.buffers import keep
from ukbob_jax.models.unet import ConvNorm, UNet, he_normal
from ukbob_jax.models.unet_fields import PerStage


class Scale(NamedTuple):
    """How wide and deep the network is."""

    dims: tuple[int, ...]  # channels per stage
    depth: tuple[int, ...]  # blocks per stage


def _scale(width: int, depth: int) -> Scale:
    return Scale(tuple(width * n for n in (1, 2, 4, 8, 16, 16)), (depth,) * 6)


SIZES = {"S": _scale(16, 1), "B": _scale(32, 1), "L": _scale(64, 2), "H": _scale(96, 3)}


class Block(nn.Module):
    """Two convolutions and a shortcut, which the first block of a stage projects with its strides."""

    features: int
    size: Size
    strides: int | Size = 1
    project: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> jax.Array:
        """b x y z i to b x y z o, fewer voxels by the strides; of several arrays the channels lie side by side."""
        residual = x
        if self.project:
            conv = Conv(
                self.features, 1, self.strides, bias=True, dtype=self.dtype, draw=he_normal, name="shortcut"
            )
            residual = keep(conv(x), MAPS)
        y = ConvNorm(self.features, self.size, self.strides, dtype=self.dtype, name="conv1")(x, train)
        return ConvNorm(self.features, self.size, dtype=self.dtype, name="conv2")(y, train, residual)


class Stage(nn.Module):
    """Blocks one after the other, the first with the strides of the stage."""

    count: int
    strides: Size
    block: dict[str, Any]  # fields of `Block`

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> jax.Array:
        """b x y z i to b x y z o, fewer voxels by the strides; of several arrays the channels lie side by side."""
        for i in range(self.count):
            strides = self.strides if i == 0 else 1
            x = Block(**self.block, strides=strides, project=i == 0, name=f"block_{i}")(x, train)
        return x


class Step(nn.Module):
    """A step of the decoder: a matrix product per voxel, each voxel repeated, the encoder's map behind it, then blocks."""

    count: int
    strides: Size  # of the stage below
    block: dict[str, Any]  # fields of `Block`

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool = False) -> jax.Array:
        """`x` b x y z i and `skip` b X x Y y Z z o to b X x Y y Z z o, where X Y Z are the strides."""
        features, dtype = self.block["features"], self.block["dtype"]
        # The original repeats first, then multiplies: the same numbers for more work.
        y = Conv(features, 1, bias=True, dtype=dtype, draw=he_normal, name="project")(x)
        y = repeat(keep(y, MAPS), self.strides)
        for i in range(self.count):
            y = Block(**self.block, project=i == 0, name=f"block_{i}")((y, skip) if i == 0 else y, train)
        return y


class STUNet(UNet):
    """Segmentation network: volumes b x y z c to logits b x y z k, float32; slices b x y c to b x y k.

    Names are those of the original's constructor, and `size` for its four trainers. Kernels of two numbers make a network
    of slices.

    Args:
        size: "S", "B", "L" or "H", for `dims` and `depth` where those are empty; kept as "" where they differ.
        depth: residual blocks per stage, of the encoder and of the decoder; one number or one per stage.
        dims: channels per stage.
        pool_op_kernel_sizes: strides of each stage but the first; one number, or per stage one number or one per axis.
        conv_kernel_sizes: voxels, odd; one number, or per stage one number or one per axis.

    The other fields are those of `UNet`.
    """

    size: str = "B"
    depth: PerStage = ()
    dims: PerStage = ()
    pool_op_kernel_sizes: PerStage = 2
    conv_kernel_sizes: PerStage = 3

    def __post_init__(self) -> None:
        """One value per stage, as tuples: a model must be hashable, since compiled programs are kept per model."""
        given = {field: value for field in Scale._fields if (value := getattr(self, field)) not in ((), [])}
        if self.size not in SIZES and len(given) < len(Scale._fields):
            raise ConfigError(f"STUNet: size {self.size!r} must be one of {', '.join(SIZES)}.")
        scale = SIZES.get(self.size, SIZES["B"])._replace(**given)
        stages = len(scale.dims) if isinstance(scale.dims, list | tuple) else 0
        unet_fields.check_stages("STUNet", stages, "dims")
        scale = Scale(*(unet_fields.each(f"STUNet: {f}", getattr(scale, f), stages) for f in Scale._fields))
        rank = unet_fields.rank_of(self.conv_kernel_sizes, self.pool_op_kernel_sizes)
        sizes = {
            field: unet_fields.each_size(f"STUNet: {field}", getattr(self, field), count, rank)
            for field, count in (("conv_kernel_sizes", stages), ("pool_op_kernel_sizes", stages - 1))
        }
        unet_fields.check("STUNet", rank, sizes["conv_kernel_sizes"])
        name = next((name for name, known in SIZES.items() if known == scale), "")
        for field, value in {**scale._asdict(), **sizes, "size": name}.items():
            object.__setattr__(self, field, value)
        super().__post_init__()

    @nn.nowrap
    def encoder_stages(self) -> list[nn.Module]:  # noqa: D102 - as in UNet
        stage = self.saving(Stage, 1)
        rows = zip(self.depth, self.stage_strides)
        return [stage(count, strides, self._block(i)) for i, (count, strides) in enumerate(rows)]

    @nn.nowrap
    def decoder_steps(self) -> list[nn.Module]:  # noqa: D102 - as in UNet
        step, below = self.saving(Step, 2), range(len(self.dims) - 1, 0, -1)
        return [step(self.depth[i - 1], self.stage_strides[i], self._block(i - 1)) for i in below]

    @property
    def stage_strides(self) -> tuple[Size, ...]:  # noqa: D102 - as in UNet
        return ((1,) * len(self.conv_kernel_sizes[0]), *self.pool_op_kernel_sizes)

    @nn.nowrap
    def _block(self, stage: int) -> dict[str, Any]:
        size = self.conv_kernel_sizes[stage]
        return {"features": self.dims[stage], "size": size, "dtype": self.dtype}


def build(fields: Mapping[str, Any]) -> STUNet:
    """An STU-Net from its fields as JSON values, the original's `enable_deep_supervision` among them.

    Raises:
        ConfigError: a field is unknown or cannot be used; the message names it.
    """
    fields = dict(fields)
    if "enable_deep_supervision" in fields:
        fields.setdefault("deep_supervision", fields.pop("enable_deep_supervision"))
    return architecture.build_module(STUNet, fields)


def repeat(x: jax.Array, strides: Size) -> jax.Array:
    """Each voxel as a block of `strides` voxels: b x y z c to b X x Y y Z z c."""
    batch, *size, channels = x.shape
    ones = [length for n in size for length in (n, 1)]
    wide = [length for n, s in zip(size, strides) for length in (n, s)]
    blocks = jnp.broadcast_to(x.reshape(batch, *ones, channels), (batch, *wide, channels))
    return blocks.reshape(batch, *(n * s for n, s in zip(size, strides)), channels)
