"""MedNeXt (Roy et al. 2023): a U-Net of ConvNeXt blocks, four times down and up, in two or three dimensions.

The numbers equal those of the class `MedNeXt` of MIC-DKFZ/MedNeXt with the same weights, see `tests/models/mednext/`.
Axes: `b` batch, `x y z` voxels, of a slice `x y`, `c` channels, `k` classes.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.errors import ConfigError, GeometryError
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Size
from ukbob_jax.models.blocks import KEEP_MAPS
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.mednext.blocks import NORMS, Block, Pointwise

LEVELS = 4  # of halvings
MULTIPLE = 2**LEVELS  # voxels
STAGES = 2 * LEVELS + 1  # encoder, bottleneck, decoder, in this order
DIMENSIONS = {"2d": 2, "3d": 3}


class MedNeXt(nn.Module):
    """Segmentation network: volumes b x y z c to logits b x y z k, float32; with dim="2d", slices b x y c to b x y k.

    Names and defaults are those of the original's constructor, but for its `deep_supervision` (there on or off, here how
    many) and for `checkpoint_style`, which `build` reads as `remat`.

    Args:
        in_channels: contrasts of the input.
        out_channels: classes k.
        n_channels: of the first stage; they double at each of the four halvings.
        exp_r: channels inside a block per channel of its stage, one number, or nine: encoder, bottleneck, decoder.
        kernel_size: voxels along each axis, odd, of every depthwise convolution; None: the next two say it.
        enc_kernel_size: of the encoder, the halvings included.
        dec_kernel_size: of bottleneck and decoder.
        do_res: a residual in blocks that keep the size.
        do_res_up_down: a residual in blocks that halve or double it.
        block_counts: blocks of each of the nine stages.
        norm_type: "group" (each channel over all voxels) or "layer" (all channels of a voxel); both affine.
        dim: "3d" or "2d".
        grn: response normalisation in every block but the first halving, which the original leaves out: version 2's block.
        deep_supervision: coarser logits with a head of their own, 0 to 4, the last at the bottleneck; the original has 4
            or none. Training gives them as a list, and so does `deep=True`.
        dtype: of the arithmetic; parameters are float32, and so are statistics and logits.
        remat: recompute whole blocks in the backward pass, not only what costs little; same parameters.
    """

    in_channels: int
    out_channels: int
    n_channels: int = 32
    exp_r: int | Sequence[int] = 4
    kernel_size: int | None = 7
    enc_kernel_size: int | None = None
    dec_kernel_size: int | None = None
    do_res: bool = False
    do_res_up_down: bool = False
    block_counts: Sequence[int] = (2,) * STAGES
    norm_type: str = "group"
    dim: str = "3d"
    grn: bool = False
    deep_supervision: int = LEVELS
    dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        """Keep sequences as tuples: a model must be hashable, since compiled programs are kept per model."""
        for name in ("exp_r", "block_counts"):
            object.__setattr__(self, name, architecture.tuples(getattr(self, name)))
        super().__post_init__()

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self._check_fields()
        policy = None if self.remat else KEEP_MAPS
        block: Any = functools.partial(nn.remat(Block, policy=policy), norm=self.norm_type, dtype=self.dtype)
        width, expansion = [self.n_channels << level for level in range(LEVELS + 1)], self.expansion
        enc, dec = self.kernel_sizes
        step: dict[str, Any] = {"residual": self.do_res_up_down}

        def stage(at: int, level: int, size: int) -> list[Any]:
            same: dict[str, Any] = {"residual": self.do_res, "grn": self.grn}
            return [block(width[level], expansion[at], size, **same) for _ in range(self.block_counts[at])]

        down = functools.partial(block, size=enc, sampling="down", **step)
        up = functools.partial(block, size=dec, sampling="up", grn=self.grn, **step)
        levels, last = range(LEVELS), STAGES - 1
        self.stem = Pointwise(width[0], dtype=self.dtype)
        self.enc_block = [stage(level, level, enc) for level in levels]
        self.down = [down(width[i + 1], expansion[i + 1], grn=self.grn and i > 0) for i in levels]
        self.bottleneck = stage(LEVELS, LEVELS, dec)
        self.up = [up(width[level], expansion[last - level]) for level in levels]
        self.dec_block = [stage(last - level, level, dec) for level in levels]
        head: dict[str, Any] = {
            "transposed": True,
            "dtype": self.dtype,
            "accumulate": at_least_float32(self.dtype),
        }
        self.out = [Pointwise(self.out_channels, **head) for _ in range(self.deep_supervision + 1)]
        self.param("dummy_tensor", nn.initializers.ones, (1,))  # the original's; nothing reads it

    def __call__(
        self, x: jax.Array, *, train: bool = False, deep: bool = False
    ) -> jax.Array | list[jax.Array]:
        """Logits b x y z k, float32, of volumes `x` b x y z c; of slices without z.

        Args:
            x: any float type and size; sizes that are no multiple of 16 are padded with zeros at the end, and the logits
                are cropped.
            train: with `deep_supervision`, a list: these logits, then those at half the size, a quarter, ..., padding
                not cropped.
            deep: that list in any case.
        Raises:
            GeometryError: another number of axes or channels. It is a ValueError.
        """
        self._check_input(x)
        size = x.shape[1:-1]
        maps = self.hidden(_padded(x))
        y = maps[LEVELS]
        decoded = [y]  # coarsest first
        for level in reversed(range(LEVELS)):
            y = _through(self.dec_block[level], maps[level] + self.up[level](y))
            decoded.append(y)
        logits = _cropped(self.out[0](y), size)
        if not (deep or self.is_initializing() or (train and self.deep_supervision)):
            return logits
        return [logits, *(head(y) for head, y in zip(self.out[1:], decoded[-2::-1]))]

    @nn.nowrap
    def init(self, rngs: Any, x: jax.Array, **options: Any) -> dict[str, Any]:
        """Variables {"params": ...}. Compiled whole: only draws, no forward pass."""
        return jax.jit(functools.partial(super().init, **options))(rngs, x)

    def hidden(self, x: jax.Array, *, train: bool = False) -> list[jax.Array]:
        """The encoder's five maps (b x y z c, size halving, channels doubling), the bottleneck's last; `x` is not padded.

        `model.apply({"params": params}, x, method="hidden")`. Raises GeometryError as `__call__`.
        """
        self._check_input(x)
        return self._encode(x)

    @property
    def rank(self) -> int:
        """Axes of voxels."""
        return DIMENSIONS[self.dim]

    @property
    def strides(self) -> tuple[Size, ...]:
        """Voxels of the input per voxel of each of the logits."""
        return tuple((2**level,) * self.rank for level in range(self.deep_supervision + 1))

    @property
    def expansion(self) -> tuple[int, ...]:
        """`exp_r` of each of the nine stages."""
        return (self.exp_r,) * STAGES if isinstance(self.exp_r, int) else tuple(self.exp_r)

    @property
    def kernel_sizes(self) -> tuple[Any, Any]:
        """Voxels of the kernels of the encoder, and of bottleneck and decoder."""
        if self.kernel_size is None:
            return self.enc_kernel_size, self.dec_kernel_size
        return self.kernel_size, self.kernel_size

    def _encode(self, x: jax.Array) -> list[jax.Array]:
        x, maps = self.stem(x), []
        for blocks, down in zip(self.enc_block, self.down):
            maps.append(_through(blocks, x))
            x = down(maps[-1])
        return [*maps, _through(self.bottleneck, x)]

    def _check_fields(self) -> None:
        wrong, counts = None, self.block_counts
        if self.dim not in DIMENSIONS:
            wrong = f"dim {self.dim!r} must be one of {', '.join(DIMENSIONS)}"
        elif len(self.expansion) != STAGES or min(self.expansion) < 1:
            wrong = f"exp_r {self.exp_r} must be one number or {STAGES}, each at least 1"
        elif not all(isinstance(k, int) and k > 0 and k % 2 for k in self.kernel_sizes):
            wrong = f"kernel sizes {self.kernel_sizes} must be odd numbers of voxels"
        elif len(counts) != STAGES or min(counts) < 0:
            wrong = f"block_counts {counts} must be {STAGES} numbers"
        elif self.norm_type not in NORMS:
            wrong = f"norm_type {self.norm_type!r} must be one of {', '.join(NORMS)}"
        elif not 0 <= self.deep_supervision <= LEVELS:
            wrong = f"deep_supervision {self.deep_supervision} must be 0 to {LEVELS} coarser logits"
        if wrong:
            raise ConfigError(f"MedNeXt: {wrong}.")

    def _check_input(self, x: jax.Array) -> None:
        if x.ndim != self.rank + 2 or x.shape[-1] != self.in_channels:
            axes = ", ".join("xyz"[: self.rank])
            raise GeometryError(
                f"MedNeXt: input is {x.shape}, expected (b, {axes}, {self.in_channels}): channels last, one scan needs a "
                "leading axis."
            )


def build(fields: Mapping[str, Any]) -> MedNeXt:
    """A MedNeXt from its fields as JSON values, the original's among them.

    Raises:
        ConfigError: a field is unknown or cannot be used; the message names it.
    """
    fields = dict(fields)
    style = fields.pop("checkpoint_style", None)
    if style not in (None, "outside_block"):
        raise ConfigError(
            f"MedNeXt: checkpoint_style {style!r} must be None or 'outside_block', which is remat."
        )
    if style:
        fields.setdefault("remat", True)
    if isinstance(deep := fields.get("deep_supervision"), bool):
        fields["deep_supervision"] = LEVELS * deep
    return architecture.build_module(MedNeXt, fields)


def _through(blocks: Sequence[nn.Module], x: jax.Array) -> jax.Array:
    return functools.reduce(lambda y, block: block(y), blocks, x)


def _padded(x: jax.Array) -> jax.Array:
    """`x` (b v c) with zeros at the end of each axis, up to a multiple of 16."""
    more = [-n % MULTIPLE for n in x.shape[1:-1]]
    return jnp.pad(x, ((0, 0), *((0, n) for n in more), (0, 0))) if any(more) else x


def _cropped(x: jax.Array, size: Size) -> jax.Array:
    return x if x.shape[1:-1] == size else x[(slice(None), *map(slice, size))]
