"""The Swin encoder in 3D: attention inside windows, patch merging, four stages.

Axes: b batch, x y z voxels, c channels, n windows, t tokens of a window (q query, k key), h heads, d width of a head.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.models.blocks import (
    KEEP_MAPS,
    Dropout,
    Norm,
    PatchEmbed,
    ResidualBlock,
    kernel_init,
)
from ukbob_jax.models.kernels.attention import attend
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.norm import normalize
from ukbob_jax.models.swin_unetr import windows
from ukbob_jax.models.swin_unetr.windows import Size

# Offsets (x, y, z) of the eight interleaved grids in the order they are concatenated.
MERGINGS = {
    "merging": ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)),
    "mergingv2": tuple(np.ndindex(2, 2, 2)),
    # MONAI 0.9 to 1.4, and so most public checkpoints: two grids twice, two never.
    "merging_legacy": (
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (1, 0, 1),
        (0, 1, 0),
        (0, 0, 1),
        (1, 1, 1),
    ),
}


class WindowAttention(nn.Module):
    """Multi-head self-attention inside each window, with a learned bias per relative position."""

    heads: int
    window: Size  # voxels of a full window; the bias table has one row per relative position in it
    qkv_bias: bool = True
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    dtype: Any = jnp.float32
    kind: str = "plain"  # of `kernels/attention.py`

    @nn.compact
    def __call__(self, x: jax.Array, regions: np.ndarray | None, train: bool) -> jax.Array:
        """`x` b n t c; `regions` n t, int32: tokens of one window attend to each other where their regions are equal."""
        b, n, t, c = x.shape
        dense = {"kernel_init": kernel_init, "dtype": self.dtype}
        qkv = nn.Dense(3 * c, use_bias=self.qkv_bias, name="qkv", **dense)(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, t, 3, self.heads, c // self.heads), 3, 0)  # b n t h d
        q = q * (c // self.heads) ** -0.5
        dropout = None
        if train and self.attn_drop_rate:
            dropout = functools.partial(Dropout(self.attn_drop_rate), train=True)
        x = attend(q, k, v, self._bias(t), regions, dropout, self.kind).reshape(b, n, t, c)
        x = nn.Dense(c, name="proj", **dense)(x)
        return Dropout(self.drop_rate)(x, train)

    def _bias(self, tokens: int) -> jax.Array:  # h q k
        """Bias per head and pair of tokens.

        A window cut short by a small map takes the first `tokens` rows and columns of the full window's table of
        indices, as MONAI does; public weights expect it.
        """
        rows = int(np.prod([2 * w - 1 for w in self.window]))
        init = nn.initializers.truncated_normal(0.02)
        table = self.param("relative_bias", init, (rows, self.heads), jnp.float32)
        index = windows.relative_index(self.window)[:tokens, :tokens]
        return table.T[:, index].astype(at_least_float32(self.dtype))


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    hidden: int
    drop_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """... c to ... c."""
        dense = {"kernel_init": kernel_init, "dtype": self.dtype}
        channels = x.shape[-1]
        x = nn.gelu(nn.Dense(self.hidden, name="linear1", **dense)(x), approximate=False)
        x = Dropout(self.drop_rate)(x, train)
        x = nn.Dense(channels, name="linear2", **dense)(x)
        return Dropout(self.drop_rate)(x, train)


class SwinBlock(nn.Module):
    """Attention inside windows, then an MLP, each with a residual (Swin, Liu et al. 2021, Eq. 3; here in 3D)."""

    heads: int
    window: Size  # voxels
    shift: Size  # voxels; zeros for a plain block
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: Any = jnp.float32
    attention: str = "plain"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """b x y z c to b x y z c."""
        y = Norm("layer", dtype=self.dtype, name="norm1")(x)
        x = x + Dropout(self.drop_path_rate, whole_samples=True)(self._attend(y, train), train)
        y = Norm("layer", dtype=self.dtype, name="norm2")(x)
        y = Mlp(int(x.shape[-1] * self.mlp_ratio), self.drop_rate, self.dtype, name="mlp")(y, train)
        return x + Dropout(self.drop_path_rate, whole_samples=True)(y, train)

    def _attend(self, x: jax.Array, train: bool) -> jax.Array:  # b x y z c
        size = x.shape[1:4]
        window, shift = windows.fit(size, self.window, self.shift)
        full = windows.padded(size, window)
        x = windows.pad_to(x, full)
        if any(shift):
            x = jnp.roll(x, [-s for s in shift], (1, 2, 3))
        attention = WindowAttention(
            self.heads,
            self.window,
            self.qkv_bias,
            self.drop_rate,
            self.attn_drop_rate,
            self.dtype,
            self.attention,
            name="attention",
        )
        x = attention(
            windows.window_partition(x, window), windows.shift_region_ids(full, window, shift), train
        )
        x = windows.window_reverse(x, window, full)
        if any(shift):
            x = jnp.roll(x, shift, (1, 2, 3))
        return windows.crop_to(x, size)


class PatchMerging(nn.Module):
    """Halves the size and doubles the channels: eight interleaved grids side by side, norm, linear."""

    offsets: tuple[Size, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b x y z c to b x/2 y/2 z/2 2c, odd sizes rounded up."""
        channels = x.shape[-1]
        x = windows.pad_to(x, tuple(s + s % 2 for s in x.shape[1:4]))
        x = jnp.concatenate([x[:, i::2, j::2, k::2] for i, j, k in self.offsets], axis=-1)
        x = Norm("layer", dtype=self.dtype, name="norm")(x)
        dense = nn.Dense(2 * channels, False, kernel_init=kernel_init, dtype=self.dtype, name="reduction")
        return dense(x)


class Encoder(nn.Module):
    """Patch embedding and four stages of Swin blocks, each followed by a patch merging."""

    features: int
    depths: Sequence[int]
    heads: Sequence[int]
    block: dict[
        str, Any
    ]  # fields of every `SwinBlock`: window, mlp_ratio, qkv_bias, drop_rate, attn_drop_rate, attention
    offsets: tuple[Size, ...]  # of the patch merging
    drop_path_rate: float = 0.0  # of the last block; the first has 0
    patch_norm: bool = False
    normalize: bool = True
    conv_blocks: bool = False  # a residual convolution block before each stage (version 2)
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> list[jax.Array]:
        """Five maps of halving size: the embedding and the output of each stage, normalised if `normalize`."""
        # static_argnums counts self: `train` is the second argument after it
        policy = None if self.remat else KEEP_MAPS
        block_type = nn.remat(SwinBlock, static_argnums=(2,), policy=policy)
        conv_type = nn.remat(ResidualBlock, static_argnums=(2,), policy=policy)
        rates = np.linspace(0, self.drop_path_rate, sum(self.depths))
        shift = tuple(w // 2 for w in self.block["window"])
        x = windows.pad_to(x, tuple(s + s % 2 for s in x.shape[1:4]))
        x = PatchEmbed(self.features, self.dtype, name="patch_embed")(x)
        if self.patch_norm:
            x = Norm("layer", dtype=self.dtype, name="patch_norm")(x)
        x = Dropout(self.block["drop_rate"])(x, train)
        hidden, done = [self._output(x)], 0
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads), 1):
            if self.conv_blocks:  # always with plain instance norm, whatever the decoder has
                norm = {"kind": "instance"}
                x = conv_type(self.features << stage - 1, norm, self.dtype, name=f"stage{stage}_conv_block")(
                    x, train
                )
            for i in range(depth):
                fields = {
                    **self.block,
                    "shift": shift if i % 2 else (0, 0, 0),
                    "drop_path_rate": float(rates[done]),
                }
                name = f"stage{stage}_block{i}"
                x = block_type(heads=heads, dtype=self.dtype, name=name, **fields)(x, train)
                done += 1
            x = PatchMerging(self.offsets, self.dtype, name=f"stage{stage}_merging")(x)
            hidden.append(self._output(x))
        return hidden

    def _output(self, x: jax.Array) -> jax.Array:
        if not self.normalize:
            return x
        return normalize(x, (4,)).astype(self.dtype)
