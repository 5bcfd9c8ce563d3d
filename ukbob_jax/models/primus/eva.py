"""The transformer of Primus: EVA-02's blocks (Fang et al. 2023) on the tokens of a volume.

Axes: `b` batch, `t` tokens, registers first (`q` query, `k` key), `d` channels, `h` heads, `w` width of a head.
Parameters are float32; `dtype` is that of the arithmetic; statistics, rotations and softmax are float32 at least.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.errors import GeometryError
from ukbob_jax.models.architecture import Size
from ukbob_jax.models.blocks import Dropout, Norm
from ukbob_jax.models.kernels.dtypes import at_least_float32

STD = 0.02  # of the draws of linear layers and positions
TEMPERATURE = 10000  # of the rotations: the slowest turns nearly so many times less than the fastest
TURNED = 6  # numbers of a head that share a frequency: two for each axis


class Attention(nn.Module):
    """Multi-head self-attention over all tokens; queries and keys are turned by their place in the volume."""

    heads: int
    registers: int = 0  # tokens in front that have no place
    qkv_bias: bool = True  # of queries and values; keys never have one
    inner_norm: bool = False  # LayerNorm before the last layer
    attn_drop_rate: float = 0.0
    drop_rate: float = 0.0
    out_std: float = STD  # of the draw of the last layer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, places: "Places | None") -> jax.Array:
        """b t d to b t d; without `places` nothing is turned."""
        b, t, d = x.shape

        def heads(name: str, bias: bool) -> jax.Array:  # b t h w
            return _dense(d, self.dtype, name, bias=bias)(x).reshape(b, t, self.heads, d // self.heads)

        q, k, v = heads("q_proj", self.qkv_bias), heads("k_proj", False), heads("v_proj", self.qkv_bias)
        if places is not None:
            q, k = turned(q, places, self.registers), turned(k, places, self.registers)
        if train and self.attn_drop_rate:
            drop = functools.partial(Dropout(self.attn_drop_rate, name="attn_drop"), train=True)
            x = attended(q, k, v, drop)
        else:
            x = jax.checkpoint(attended)(
                q, k, v
            )  # scores, t times as large, are not kept for the backward pass
        x = x.reshape(b, t, d)
        if self.inner_norm:
            x = Norm("layer", dtype=self.dtype, name="norm")(x)
        x = _dense(d, self.dtype, "proj", std=self.out_std)(x)
        return Dropout(self.drop_rate)(x, train)


class GatedMlp(nn.Module):
    """SwiGLU (Shazeer 2020) with a LayerNorm before the last layer."""

    hidden: int
    drop_rate: float = 0.0
    out_std: float = STD
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """b t d to b t d."""
        gate = nn.silu(_dense(self.hidden, self.dtype, "fc1_g")(x))
        y = gate * _dense(self.hidden, self.dtype, "fc1_x")(x)
        y = Norm("layer", dtype=self.dtype, name="norm")(Dropout(self.drop_rate)(y, train))
        y = _dense(x.shape[-1], self.dtype, "fc2", std=self.out_std)(y)
        return Dropout(self.drop_rate)(y, train)


class EvaBlock(nn.Module):
    """Attention, then a gated MLP, each behind a LayerNorm, scaled per channel if `init_values` says so, and added."""

    attention: dict[str, Any]  # fields of `Attention`
    hidden: int  # channels of the MLP
    init_values: float | None = None  # of the scales per channel (LayerScale); None: there are none
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    out_std: float = STD
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, places: "Places | None") -> jax.Array:
        """b t d to b t d; without `places` nothing is turned."""
        shared: dict[str, Any] = {"drop_rate": self.drop_rate, "out_std": self.out_std, "dtype": self.dtype}
        y = Norm("layer", dtype=self.dtype, name="norm1")(x)
        x = x + self._branch(
            Attention(**self.attention, **shared, name="attn")(y, train, places), "gamma_1", train
        )
        y = Norm("layer", dtype=self.dtype, name="norm2")(x)
        return x + self._branch(GatedMlp(self.hidden, **shared, name="mlp")(y, train), "gamma_2", train)

    def _branch(self, y: jax.Array, name: str, train: bool) -> jax.Array:
        if self.init_values is not None:
            gamma = self.param(name, nn.initializers.constant(self.init_values), y.shape[-1:], jnp.float32)
            y = y * gamma.astype(y.dtype).reshape(1, 1, -1)
        return Dropout(self.drop_path_rate, whole_samples=True)(y, train)


class Eva(nn.Module):
    """Learnt positions, blocks, a last LayerNorm.

    Training with `patch_drop_rate` shows the blocks a random share of the volume's tokens; the others come out as zeros.
    """

    depth: int
    block: dict[str, Any]  # fields of every `EvaBlock`
    learnt: bool = True  # a vector added to each token, registers included
    drop_path_rate: float = 0.0  # of the last block; the first has 0
    patch_drop_rate: float = 0.0
    rotary: bool = True  # queries and keys are turned by the place of their token
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, grid: Size) -> jax.Array:
        """b t d, registers first, to b t d without them, for a volume of `grid` tokens x y z.

        Raises:
            GeometryError: the learnt positions are for another number of tokens.
        """
        registers = self.block["attention"]["registers"]
        if self.learnt:
            x = x + self._positions(x, grid).astype(x.dtype)
        places = of_grid(grid, x.shape[-1] // self.block["attention"]["heads"]) if self.rotary else None
        kept = self._kept(len(x), x.shape[1] - registers) if train and self.patch_drop_rate else None
        if kept is not None:
            placed = jnp.take_along_axis(x[:, registers:], kept[..., None], 1)
            x = jnp.concatenate((x[:, :registers], placed), 1)
            places = places and Places(*(table[0][kept] for table in places))
        # static_argnums counts self
        kind = nn.remat(EvaBlock, static_argnums=(2,)) if self.remat else EvaBlock
        for i, rate in enumerate(np.linspace(0, self.drop_path_rate, self.depth)):
            own: dict[str, Any] = {"drop_path_rate": float(rate), "out_std": STD / math.sqrt(2 * (i + 1))}
            x = kind(**self.block, **own, dtype=self.dtype, name=f"blocks_{i}")(x, train, places)
        x = Norm("layer", dtype=self.dtype, name="norm")(x)[:, registers:]
        if kept is None:
            return x
        whole = jnp.zeros((len(x), math.prod(grid), x.shape[-1]), x.dtype)
        return whole.at[jnp.arange(len(x))[:, None], kept].set(x)

    def _positions(self, x: jax.Array, grid: Size) -> jax.Array:
        shape = (1, *x.shape[1:])
        held = self.get_variable("params", "pos_embed")
        if held is not None and held.shape != shape:
            raise GeometryError(
                f"Primus: input of {' x '.join(map(str, grid))} tokens, but its learnt positions are for "
                f"{held.shape[1] - x.shape[1] + math.prod(grid)} in all. Give input_shape, the size of its crops."
            )
        return self.param("pos_embed", nn.initializers.normal(STD), shape, jnp.float32)

    def _kept(self, batch: int, tokens: int) -> jax.Array:
        """Tokens that each sample keeps, in random order: b t."""
        draws = jax.random.uniform(self.make_rng("dropout"), (batch, tokens))
        return jnp.argsort(draws, axis=1)[:, : max(1, int(tokens * (1 - self.patch_drop_rate)))]


class Places(NamedTuple):
    """Sine and cosine of the angles by which the tokens of a volume are turned, x slowest: 1 or b, t, w/2 each."""

    sin: jax.Array
    cos: jax.Array


def of_grid(grid: Size, width: int) -> Places:
    """The places of `grid` tokens x y z, for heads of `width` numbers."""
    return Places(*(jnp.asarray(table)[None] for table in rotations(grid, width)))


@functools.lru_cache(maxsize=64)
def rotations(grid: Size, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of the angles by which each pair of numbers of a head is turned: t w/2 each, float32.

    Frequencies fall from 1 radian per token towards 1 / TEMPERATURE; a sixth of the head's numbers has them for x, y and z
    each (twice, as the pairs are). In float32 step by step, as the original computes them, each step rounded once:
    libraries' float32 powers and sines are a bit off, each in its own way.
    """
    count = width // TURNED
    powers = np.arange(count, dtype=np.float32) / np.float32(count)
    bands = 1 / (TEMPERATURE ** powers.astype(np.float64)).astype(np.float32)
    along = [np.arange(n, dtype=np.float32) / np.float32(n) * np.float32(n) for n in grid]
    places = np.stack(np.meshgrid(*along, indexing="ij"), -1)  # x y z 3
    angles = (places[..., None] * bands).reshape(-1, 3 * count).astype(np.float64)
    return np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)


def turned(x: jax.Array, places: Places, registers: int) -> jax.Array:
    """`x` (b t h w) with neighbouring numbers as points of a plane, turned by the token's place (Su et al. 2021).

    The first `registers` tokens stay; the others are those of `places`.
    """
    wide = at_least_float32(x.dtype)
    sin, cos = (table.astype(wide)[:, :, None] for table in places)  # b t 1 w/2
    pairs = x[:, registers:].astype(wide).reshape(x.shape[0], -1, *x.shape[2:3], x.shape[-1] // 2, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    pairs = jnp.stack((first * cos - second * sin, second * cos + first * sin), -1)
    placed = pairs.reshape(*pairs.shape[:3], -1).astype(x.dtype)
    return jnp.concatenate((x[:, :registers], placed), 1) if registers else placed


def attended(
    q: jax.Array, k: jax.Array, v: jax.Array, drop: Callable[[jax.Array], jax.Array] = lambda probs: probs
) -> jax.Array:
    """`softmax(q k' / sqrt(w)) v` of every head, `drop` applied to the softmax: b t h w each."""
    wide = at_least_float32(q.dtype)
    scores = jnp.einsum("bqhw,bkhw->bhqk", q, k, preferred_element_type=wide) * q.shape[-1] ** -0.5
    return jnp.einsum("bhqk,bkhw->bqhw", drop(jax.nn.softmax(scores).astype(v.dtype)), v)


def _dense(features: int, dtype: Any, name: str, bias: bool = True, std: float = STD) -> nn.Dense:
    return nn.Dense(features, bias, kernel_init=nn.initializers.normal(std), dtype=dtype, name=name)
