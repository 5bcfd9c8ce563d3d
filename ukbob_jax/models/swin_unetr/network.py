"""Swin-UNETR (Hatamizadeh et al. 2022): a Swin encoder, a residual convolutional decoder, a linear head.

The numbers equal `monai.networks.nets.SwinUNETR`'s with the same weights, see `tests/models/`. Axes: b batch,
x y z voxels, c channels, k classes.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.errors import ConfigError, GeometryError
from ukbob_jax.models.blocks import KEEP_MAPS, NORMS, Conv, ResidualBlock, UpBlock
from ukbob_jax.models.kernels.attention import KINDS
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.swin_unetr import windows
from ukbob_jax.models.swin_unetr.encoder import MERGINGS, Encoder
from ukbob_jax.models.swin_unetr.windows import Size

MULTIPLE = 32  # voxels: one halving by the patch embedding, four by the patch mergings


class SwinUNETR(nn.Module):
    """Segmentation network: volumes b x y z c to logits b x y z k, float32.

    Args:
        in_channels: contrasts of the input.
        out_channels: classes k.
        feature_size: channels of the first stage; doubles at each of the four.
        depths: Swin blocks per stage, odd ones shifted.
        num_heads: attention heads per stage; each must divide the channels of its stage.
        window_size: voxels, one number or one per axis; smaller maps are one window.
        norm: of the convolution blocks: "instance" (no parameters), "instance_affine", "batch" (running statistics in
            the collection `batch_stats`, updated with `train=True, mutable=["batch_stats"]`), "group" (`norm_groups`
            runs of channels), "layer" (the channels of each voxel).
        downsample: patch merging: "merging" as in MONAI from 1.5; "merging_legacy" as in MONAI 0.9 to 1.4, which most
            public weights were trained with; "mergingv2". Weights fit all three, the results differ.
        use_v2: a residual convolution block before each stage (Swin-UNETR V2).
        qkv_bias: biases of query, key and value.
        normalize: the five maps handed to the decoder are standardised over their channels.
        patch_norm: LayerNorm after the patch embedding.
        dropout_path_rate: stochastic depth of the last Swin block, rising from 0 at the first.
        dtype: of the arithmetic; parameters are float32, and so are statistics, softmax and logits.
        remat: recompute each block in the backward pass with its convolutions, not only what costs little: about a third
            more time, for a fifth less memory on accelerators and none on a CPU; same parameters.
        pad: pad sizes that are no multiple of 32 with zeros at the end and crop the logits; False refuses them.
        drop_rate: dropout after the patch embedding, the attention projection and inside the MLP.
        attn_drop_rate: dropout of the attention weights.
        mlp_ratio: hidden width of the MLP over its channels.
        norm_groups: groups of "group".
        norm_affine: scale and bias in "batch", "group" and "layer".
        deep_supervision: decoder steps before the last that get a head of their own (0 to 4), from half the size on;
            only training sees their logits, and MONAI's layout has no place for their weights.
        attention: on NVIDIA's GPUs, "plain" in steps of XLA's own kernels, or "fused" in kernels of our own that never
            write a score and move a fifteenth of the bytes; these compile for an H100 but have never run on a GPU, and
            XLA does not split them over several. Same parameters; no difference elsewhere.
    """

    in_channels: int
    out_channels: int
    feature_size: int = 48
    depths: Sequence[int] = (2, 2, 2, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window_size: int | Sequence[int] = (7, 7, 7)
    norm: str = "instance"
    downsample: str = "merging"
    use_v2: bool = False
    qkv_bias: bool = True
    normalize: bool = True
    patch_norm: bool = False
    dropout_path_rate: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    pad: bool = True
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    mlp_ratio: float = 4.0
    norm_groups: int = 4
    norm_affine: bool = True
    deep_supervision: int = 0
    attention: str = "plain"

    def __post_init__(self) -> None:
        """Keep sequences as tuples: a model must be hashable, since compiled programs are kept per model."""
        if isinstance(self.window_size, int):
            object.__setattr__(self, "window_size", (self.window_size,) * 3)
        for name in ("depths", "num_heads", "window_size"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self._check_fields()
        f = self.feature_size
        norm = {"kind": self.norm, "groups": self.norm_groups, "affine": self.norm_affine}
        # static_argnums counts self
        policy = None if self.remat else KEEP_MAPS
        res = nn.remat(ResidualBlock, static_argnums=(2,), policy=policy)
        up = nn.remat(UpBlock, static_argnums=(3,), policy=policy)
        block = {
            "window": self.window,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "drop_rate": self.drop_rate,
            "attn_drop_rate": self.attn_drop_rate,
            "attention": self.attention,
        }
        self.swin = Encoder(
            features=f,
            depths=self.depths,
            heads=self.num_heads,
            block=block,
            offsets=MERGINGS[self.downsample],
            drop_path_rate=self.dropout_path_rate,
            patch_norm=self.patch_norm,
            normalize=self.normalize,
            conv_blocks=self.use_v2,
            remat=self.remat,
            dtype=self.dtype,
        )
        self.encoder1 = res(f, norm, self.dtype)
        self.encoder2 = res(f, norm, self.dtype)
        self.encoder3 = res(2 * f, norm, self.dtype)
        self.encoder4 = res(4 * f, norm, self.dtype)
        self.encoder10 = res(16 * f, norm, self.dtype)
        self.decoder5 = up(8 * f, norm, self.dtype)
        self.decoder4 = up(4 * f, norm, self.dtype)
        self.decoder3 = up(2 * f, norm, self.dtype)
        self.decoder2 = up(f, norm, self.dtype)
        self.decoder1 = up(f, norm, self.dtype)
        head = functools.partial(
            Conv,
            self.out_channels,
            size=1,
            bias=True,
            dtype=self.dtype,
            accumulate=at_least_float32(self.dtype),
        )
        self.head = head()
        self.aux = [head() for _ in range(self.deep_supervision)]  # of decoder2, decoder3, ...

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array | list[jax.Array]:
        """Logits b x y z k, float32, of volumes `x` b x y z c.

        Args:
            x: any float type.
            train: dropout and stochastic depth on (rng "dropout"), batch statistics updated; with `deep_supervision`,
                a list follows: these logits, then those at half the size, a quarter, ..., padding not cropped.
        Raises:
            ValueError: not five axes, another number of channels, or sizes that `pad=False` refuses.
        """
        self._check_input(x)
        size = x.shape[1:4]
        x = windows.pad_to(x, windows.padded(size, (MULTIPLE,) * 3))
        hidden = self.swin(x, train)
        skip1 = self.encoder1(x, train)
        skip2 = self.encoder2(hidden[0], train)
        skip3 = self.encoder3(hidden[1], train)
        skip4 = self.encoder4(hidden[2], train)
        y = self.encoder10(hidden[4], train)
        y5 = self.decoder5(y, hidden[3], train)
        y4 = self.decoder4(y5, skip4, train)
        y3 = self.decoder3(y4, skip3, train)
        y2 = self.decoder2(y3, skip2, train)
        y1 = self.decoder1(y2, skip1, train)
        logits = windows.crop_to(self.head(y1), size)
        if not self.deep_supervision or not (train or self.is_initializing()):
            return logits
        return [logits, *(head(y) for head, y in zip(self.aux, (y2, y3, y4, y5)))]

    @nn.nowrap
    def init(self, rngs: Any, x: jax.Array, **options: Any) -> dict[str, Any]:
        """Variables {"params": ...} and, for norm="batch", "batch_stats". Compiled whole: only draws, no forward pass."""
        return jax.jit(functools.partial(super().init, **options))(rngs, x)

    def hidden(self, x: jax.Array, *, train: bool = False) -> list[jax.Array]:
        """The encoder's five maps (b x y z c, size halving, channels doubling) without padding `x` to a multiple.

        `model.apply({"params": params}, x, method="hidden")`. Raises ValueError as `__call__`.
        """
        self._check_input(x, any_size=True)
        return self.swin(x, train)

    @property
    def window(self) -> Size:
        """Window size as one number per axis."""
        return (self.window_size,) * 3 if isinstance(self.window_size, int) else tuple(self.window_size)

    def _check_fields(self) -> None:
        wrong = None
        if len(self.depths) != 4 or len(self.num_heads) != 4 or min(self.depths) < 0:
            wrong = (
                f"depths {tuple(self.depths)} and num_heads {tuple(self.num_heads)} must be 4 numbers each"
            )
        elif any(self.feature_size * 2**i % heads for i, heads in enumerate(self.num_heads)):
            widths = tuple(self.feature_size * 2**i for i in range(4))
            wrong = f"num_heads {tuple(self.num_heads)} must divide the stages' channels {widths}"
        elif len(self.window) != 3 or min(self.window) < 1:
            wrong = f"window_size {self.window_size} must be one positive number or three"
        elif self.norm not in NORMS:
            wrong = f"norm {self.norm!r} must be one of {', '.join(NORMS)}"
        elif self.norm == "group" and self.feature_size % self.norm_groups:
            wrong = f"norm_groups {self.norm_groups} must divide feature_size {self.feature_size}"
        elif self.downsample not in MERGINGS:
            wrong = f"downsample {self.downsample!r} must be one of {', '.join(MERGINGS)}"
        elif self.attention not in KINDS:
            wrong = f"attention {self.attention!r} must be one of {', '.join(KINDS)}"
        elif not 0 <= self.deep_supervision <= 4:
            wrong = f"deep_supervision {self.deep_supervision} must be 0 to 4 decoder steps"
        if wrong:
            raise ConfigError(f"SwinUNETR: {wrong}.")

    def _check_input(self, x: jax.Array, any_size: bool = False) -> None:
        if x.ndim != 5 or x.shape[-1] != self.in_channels:
            raise GeometryError(
                f"SwinUNETR: input is {x.shape}, expected (b, x, y, z, {self.in_channels}): channels last, one scan "
                "needs a leading axis."
            )
        if not self.pad and not any_size and any(s % MULTIPLE for s in x.shape[1:4]):
            raise GeometryError(
                f"SwinUNETR: sizes {x.shape[1:4]} are not all multiples of {MULTIPLE}. Use pad=True, or crop the scan."
            )
