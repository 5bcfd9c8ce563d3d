"""Primus (Wald et al. 2025): a transformer on the patches of a volume, with no more convolutions than it takes to get there.

The numbers equal those of `Primus`, `PrimusV2` and `PrimusV3` of dynamic-network-architectures with the same weights, see
`tests/models/primus/`. Axes: `b` batch, `x y z` voxels, `c` channels, `d` channels of a token, `k` classes.
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
from ukbob_jax.models.blocks import SLOPE
from ukbob_jax.models.primus.eva import TURNED, Eva
from ukbob_jax.models.primus.patches import PatchDecode, PatchEmbed, ResidualEmbed
from ukbob_jax.models.unet_fields import last_name

VERSIONS = {"Primus": 1, "PrimusV2": 2, "PrimusV3": 3}  # the original's classes
# What the original's third class defaults to; the others share the module's defaults.
THIRD = {"drop_path_rate": 0.2, "init_values": 0.1, "scale_attn_inner": True}
ONLY_THIRD = ("depth_per_level", "ch_per_level", "add_skips")
SECOND_DEPTHS, SECOND_CHANNELS = (1, 1, 1), (32, 32, 64, 128)  # of version 2, where they are no fields
# Fields of the original that are not built here, and the values, or names of PyTorch's classes, that are what is built.
ABSENT = {"rope_impl": "RotaryEmbeddingCat", "rope_kwargs": {}}
ABSENT |= {"decoder_norm": "LayerNormNd", "decoder_act": "GELU", "nonlin": "LeakyReLU"}


class Primus(nn.Module):
    """Segmentation network: volumes b x y z c of one size to logits b x y z k, float32.

    Names are those of the originals' constructors. Learnt and rotary positions are made for `input_shape`, as there: with
    either of them another size is refused, with neither any multiple of the patch is taken. Where `input_shape` is not
    given, learnt positions are for the size that the network is initialised with, or that its weights had.

    Args:
        in_channels: contrasts of the input.
        out_channels: classes k.
        embed_dim: channels of a token.
        patch_embed_size: voxels x y z of a token, powers of two; 8 each in version 2, 2 per level in version 3.
        input_shape: voxels x y z of the input (of the crop that training cuts), multiples of the patch.
        version: 1: a patch becomes a token by one matrix product. 2: by residual blocks at full, half, a quarter and an
            eighth of the size. 3: the same with `depth_per_level` and `ch_per_level`, leaky ReLUs, and the patches of
            each finer map added to the token. None: 1, or 2 where the weights are those of 2.
        eva_depth: blocks of the transformer.
        eva_numheads: attention heads; they must divide `embed_dim`, and with rotary positions leave a multiple of 6.
        num_register_tokens: learnt tokens beside those of the volume.
        use_rot_pos_emb: queries and keys are turned by the token's place.
        use_abs_pos_embed: a learnt vector is added to each token.
        qkv_bias: biases of queries and values.
        mlp_ratio: channels inside the MLP per channel of a token.
        init_values: start of a learnt scale of every branch's channels (LayerScale); None: there is none.
        scale_attn_inner: LayerNorm before the last layer of the attention.
        drop_path_rate: stochastic depth of the last block, rising from 0 at the first.
        proj_drop_rate: dropout inside and after MLP and attention.
        attn_drop_rate: dropout of the attention weights.
        patch_drop_rate: share of the volume's tokens that training hides; zeros stand for them in the decoder.
        depth_per_level: version 3: residual blocks of each halving.
        ch_per_level: version 3: channels of the stem and of each halving.
        add_skips: version 3: the finer maps' patches are added to the tokens.
        dtype: of the arithmetic; parameters are float32, and so are statistics, rotations, softmax and logits.
        remat: recompute whole blocks in the backward pass; without it, all but the attention's scores, and the normalised
            maps of the residual blocks, is kept. Same parameters.
    """

    in_channels: int
    out_channels: int
    embed_dim: int
    patch_embed_size: Size
    input_shape: Size | None = None
    version: int | None = None
    eva_depth: int = 24
    eva_numheads: int = 16
    num_register_tokens: int = 0
    use_rot_pos_emb: bool = True
    use_abs_pos_embed: bool = True
    qkv_bias: bool = True
    mlp_ratio: float = 4 * 2 / 3
    init_values: float | None = None
    scale_attn_inner: bool = False
    drop_path_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    patch_drop_rate: float = 0.0
    depth_per_level: Sequence[int] = (1, 1, 1)
    ch_per_level: Sequence[int] = (32, 64, 256, 1024)
    add_skips: bool = True
    dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        """Keep sequences as tuples: a model must be hashable, since compiled programs are kept per model."""
        for name in ("patch_embed_size", "input_shape", "depth_per_level", "ch_per_level"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        super().__post_init__()

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        version = self.version or (2 if self._has_stem() else 1)
        self._check_fields(version)
        if version == 1:
            self.down_projection = PatchEmbed(self.embed_dim, self.patch_embed_size, self.dtype)
        else:
            self.down_projection = ResidualEmbed(
                features=self.embed_dim,
                channels=self.levels[0],
                depths=self.levels[1],
                skips=version == 3 and self.add_skips,
                slope=SLOPE if version == 3 else 0.0,
                remat=self.remat,
                dtype=self.dtype,
            )
        attention = {
            "heads": self.eva_numheads,
            "registers": self.num_register_tokens,
            "qkv_bias": self.qkv_bias,
            "inner_norm": self.scale_attn_inner,
            "attn_drop_rate": self.attn_drop_rate,
        }
        block = {
            "attention": attention,
            "hidden": int(self.embed_dim * self.mlp_ratio),
            "init_values": self.init_values,
            "drop_rate": self.proj_drop_rate,
        }
        self.eva = Eva(
            depth=self.eva_depth,
            block=block,
            learnt=self.use_abs_pos_embed,
            drop_path_rate=self.drop_path_rate,
            patch_drop_rate=self.patch_drop_rate,
            rotary=self.use_rot_pos_emb,
            remat=self.remat,
            dtype=self.dtype,
        )
        self.up_projection = PatchDecode(self.out_channels, self.patch_embed_size, self.dtype)
        if self.num_register_tokens:
            shape = (1, self.num_register_tokens, self.embed_dim)
            self.register_tokens = self.param("register_tokens", nn.initializers.normal(1e-6), shape)

    def __call__(
        self, x: jax.Array, *, train: bool = False, deep: bool = False
    ) -> jax.Array | list[jax.Array]:
        """Logits b x y z k, float32, of volumes `x` b x y z c.

        Args:
            x: any float type, of `input_shape`; without positions, of any multiple of the patch.
            train: dropout and stochastic depth on (rng "dropout").
            deep: the logits as a list of one, as networks with several give them.
        Raises:
            GeometryError: another number of axes, channels or voxels. It is a ValueError.
        """
        logits = self.up_projection(self._encode(x, train)[-1])
        return [logits] if deep else logits

    @nn.nowrap
    def init(self, rngs: Any, x: jax.Array, **options: Any) -> dict[str, Any]:
        """Variables {"params": ...}. Compiled whole: only draws, no forward pass."""
        return jax.jit(functools.partial(super().init, **options))(rngs, x)

    def hidden(self, x: jax.Array, *, train: bool = False) -> list[jax.Array]:
        """The encoder's maps, b x y z c: in versions 2 and 3 those of the stem and of each halving; last the tokens.

        `model.apply({"params": params}, x, method="hidden")`. Raises GeometryError as `__call__`.
        """
        return self._encode(x, train)

    @property
    def placed(self) -> bool:
        """Whether tokens have positions, which are for one size of the input."""
        return self.use_rot_pos_emb or self.use_abs_pos_embed

    @property
    def levels(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of versions 2 and 3: channels of stem and halvings, residual blocks of each halving."""
        if self.version == 3:
            return tuple(self.ch_per_level), tuple(self.depth_per_level)
        return SECOND_CHANNELS, SECOND_DEPTHS

    def _encode(self, x: jax.Array, train: bool) -> list[jax.Array]:
        self._check_input(x)
        *finer, tokens = self.down_projection(jnp.asarray(x))
        b, *size, d = tokens.shape
        flat = tokens.reshape(b, -1, d)  # x slowest
        if self.num_register_tokens:
            registers = jnp.broadcast_to(self.register_tokens, (b, *self.register_tokens.shape[1:]))
            flat = jnp.concatenate((registers.astype(flat.dtype), flat), 1)
        return [*finer, self.eva(flat, train, tuple(size)).reshape(b, *size, d)]

    def _has_stem(self) -> bool:
        """Whether the weights are those of an embedding by residual blocks."""
        return "stem" in self.variables.get("params", {}).get("down_projection", {})

    def _check_fields(self, version: int) -> None:
        wrong, patch, heads, shape = None, self.patch_embed_size, self.eva_numheads, self.input_shape
        if version not in VERSIONS.values():
            wrong = f"version {version!r} must be 1, 2 or 3"
        elif len(patch) != 3 or max(patch) < 2 or any(n < 1 or n & (n - 1) for n in patch):
            wrong = f"patch_embed_size {patch} must be three powers of two, not all 1"
        elif shape is not None and (len(shape) != 3 or any(n < p or n % p for n, p in zip(shape, patch))):
            wrong = f"input_shape {shape} must be three multiples of the patch {patch}"
        elif self.embed_dim % heads:
            wrong = f"eva_numheads {heads} must divide embed_dim {self.embed_dim}"
        elif self.use_rot_pos_emb and self.embed_dim // heads % TURNED:
            wrong = f"embed_dim {self.embed_dim} leaves {self.embed_dim // heads} per head, no multiple of {TURNED}, for "
            wrong += "use_rot_pos_emb"
        elif version > 1:
            channels, depths = self.levels
            if len(channels) != len(depths) + 1 or min(*channels, *depths) < 1:
                wrong = f"ch_per_level {channels} must have one number more than depth_per_level {depths}"
            elif set(patch) != {2 ** len(depths)}:
                wrong = f"patch_embed_size {patch} must be {2 ** len(depths)} each: version {version} halves the size "
                wrong += f"{len(depths)} times"
        if wrong:
            raise ConfigError(f"Primus: {wrong}.")

    def _check_input(self, x: jax.Array) -> None:
        size = x.shape[1:-1]
        if x.ndim != 5 or x.shape[-1] != self.in_channels:
            raise GeometryError(
                f"Primus: input is {x.shape}, expected (b, x, y, z, {self.in_channels}): channels last, one scan needs a "
                "leading axis."
            )
        if self.placed and self.input_shape not in (None, size):
            raise GeometryError(
                f"Primus: input of {size} voxels, but its positions are for {self.input_shape}. Cut crops or windows of "
                "that size, or train with --config.model.input_shape as the crop."
            )
        if any(n % p for n, p in zip(size, self.patch_embed_size)):
            raise GeometryError(
                f"Primus: sizes {size} are no multiples of the patch {self.patch_embed_size}. Pad or crop the scan."
            )


def build(fields: Mapping[str, Any]) -> Primus:
    """A Primus from its fields as JSON values, the originals' among them, with the defaults of its version.

    Args:
        fields: of `Primus`. `version`, or the name of the original's class as `kind`, says which one it is; without
            either it is 3 where a field of that version alone is given, else that of the weights, 1 or 2.
    Raises:
        ConfigError: a field is unknown, missing or cannot be used; the message names it.
    """
    fields = dict(fields)
    for name in ABSENT.keys() & fields.keys():
        if (value := fields.pop(name)) not in (None, ABSENT[name]) and last_name(value) != ABSENT[name]:
            raise ConfigError(
                f"Primus: field {name!r} of the original is not built here, only {ABSENT[name]!r}; got {value!r}."
            )
    kind = fields.pop("kind", None)
    if kind is not None and (
        kind not in VERSIONS or fields.setdefault("version", VERSIONS[kind]) != VERSIONS[kind]
    ):
        raise ConfigError(f"Primus: kind {kind!r} must be one of {', '.join(VERSIONS)}, as version says.")
    third = fields.setdefault("version", 3 if any(name in fields for name in ONLY_THIRD) else None) == 3
    return architecture.build_module(Primus, {**(THIRD if third else {}), **fields})
