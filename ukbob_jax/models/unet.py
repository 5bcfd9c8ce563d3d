"""What the U-Nets of the nnU-Net family share: blocks of convolution, norm and activation, and the walk through the U.

Axes: b batch, x y z voxels (slices have no z), c channels, k classes. Parameters are float32; `dtype` is that of the
arithmetic; statistics and logits are float32 at least.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.errors import GeometryError
from ukbob_jax.models import architecture
from ukbob_jax.models.activations import LEAKY, SLOPE, activate
from ukbob_jax.models.architecture import Architecture, Size
from ukbob_jax.models.blocks import KEEP_MAPS, MAPS, Conv, Dropout, Norm, Upsample
from ukbob_jax.models.kernels.buffers import keep
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.norm import EPSILON, shift_and_activate

_GAIN = math.sqrt(2 / (1 + SLOPE**2))  # of a leaky ReLU


def he_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Kernels as nnU-Net's `InitWeights_He(1e-2)` draws them: normal, variance 2 / (1 + slope^2) per input of an output."""
    return _normal(key, shape, math.prod(shape[:-1]), dtype)


def he_normal_transposed(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """The same of a transposed convolution, where PyTorch takes the kernel's outputs for its inputs."""
    return _normal(key, shape, math.prod(shape[:-2]) * shape[-1], dtype)


def _normal(key: jax.Array, shape: Sequence[int], fan: int, dtype: Any) -> jax.Array:
    """Drawn flat, as `blocks.kernel_init`."""
    return (_GAIN / math.sqrt(fan) * jax.random.normal(key, (math.prod(shape),), dtype)).reshape(shape)


class ConvNorm(nn.Module):
    """A convolution, dropout, a norm, what is added to that, and the activation: nnU-Net's ConvDropoutNormReLU."""

    features: int
    size: Size
    strides: int | Size = 1
    bias: bool = True
    norm: str = "instance_affine"  # of `unet_fields.NORMS`
    slope: float = SLOPE  # of the leaky ReLU; 0 is ReLU, 1 leaves it out
    dtype: Any = jnp.float32
    still: bool = False  # the norm starts at zero, so that a residual block begins as its shortcut
    epsilon: float = EPSILON  # added to the norm's variance
    activation: str = LEAKY
    activation_first: bool = False  # before the norm, and then not behind it
    dropout: str = ""  # of `unet_fields.DROPOUTS`
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: jax.Array | tuple[jax.Array, ...], train: bool = False, residual: jax.Array | None = None
    ) -> jax.Array:
        """b x y z i to b x y z o; of several arrays the channels lie side by side."""
        conv = Conv(
            self.features,
            self.size,
            self.strides,
            bias=self.bias,
            dtype=self.dtype,
            draw=he_normal,
            name="conv",
        )
        y = keep(conv(x), MAPS)
        if self.dropout_rate:
            y = Dropout(self.dropout_rate, whole_channels=self.dropout == "channels")(y, train)
        if self.activation_first:
            y = activate(y, self.activation, self.slope)
        fused = self.activation == LEAKY and self.slope > 0 and not self.activation_first
        slope = self.slope if fused else 1.0
        if self.norm == "none":
            y = shift_and_activate(y, None, None, residual, slope)
        else:
            scale = nn.initializers.zeros if self.still else nn.initializers.ones
            norm = Norm(self.norm, dtype=self.dtype, epsilon=self.epsilon, scale_init=scale, name="norm")
            y = norm(y, train, residual, slope)
        return y if fused or self.activation_first else activate(y, self.activation, self.slope)


class ConvStage(nn.Module):
    """Convolutions one after the other, the first with the strides of the stage."""

    count: int
    strides: int | Size
    block: dict[str, Any]  # fields of `ConvNorm`

    @nn.compact
    def __call__(self, x: jax.Array | tuple[jax.Array, ...], train: bool = False) -> jax.Array:
        """b x y z i to b x y z o, fewer voxels by the strides."""
        for i in range(self.count):
            x = ConvNorm(**self.block, strides=self.strides if i == 0 else 1, name=f"block_{i}")(x, train)
        assert isinstance(x, jax.Array)
        return x


class ConvStep(nn.Module):
    """A step of nnU-Net's decoder: a transposed convolution, the encoder's map behind it, then convolutions."""

    count: int
    strides: Size  # of the stage below
    block: dict[str, Any]  # fields of `ConvNorm`

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool = False) -> jax.Array:
        """`x` b x y z i and `skip` b X x Y y Z z o to b X x Y y Z z o, where X Y Z are the strides."""
        features, bias, dtype = (self.block[name] for name in ("features", "bias", "dtype"))
        up = Upsample(features, self.strides, bias, dtype, he_normal_transposed, name="upsample")
        y: Any = (keep(up(x), MAPS), skip)
        for i in range(self.count):
            y = ConvNorm(**self.block, name=f"block_{i}")(y, train)
        return y


class UNet(nn.Module):
    """Segmentation network: volumes b x y z c to logits b x y z k, float32; slices b x y c to b x y k.

    A network of this family says what its stages are (`encoder_stages`, `decoder_steps`) and how many voxels each takes
    (`stage_strides`).

    Args:
        in_channels: contrasts of the input.
        out_channels: classes k.
        deep_supervision: training sees the logits of every step of the decoder, not only the last.
        dtype: of the arithmetic; parameters are float32, and so are statistics and logits.
        remat: recompute whole stages in the backward pass, not only norms and activations: for less memory on
            accelerators; same parameters.
    """

    in_channels: int
    out_channels: int
    deep_supervision: bool = False
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.encoder = self.encoder_stages()
        self.decoder = self.decoder_steps()
        head = functools.partial(
            Conv,
            self.out_channels,
            size=1,
            bias=True,
            dtype=self.dtype,
            accumulate=at_least_float32(self.dtype),
            draw=he_normal,
        )
        self.head = [head() for _ in self.decoder]  # coarsest first, as in nnU-Net

    @nn.nowrap
    def encoder_stages(self) -> list[nn.Module]:
        """Modules (x, train) -> x, finest first."""
        raise NotImplementedError

    @nn.nowrap
    def decoder_steps(self) -> list[nn.Module]:
        """Modules (x, skip, train) -> x, coarsest first."""
        raise NotImplementedError

    @property
    def stage_strides(self) -> tuple[Size, ...]:
        """Voxels of each stage of the encoder per voxel of the next, the first of the input's."""
        raise NotImplementedError

    @nn.nowrap
    def saving(self, module: Any, arrays: int) -> Any:
        """A class of modules which recompute, for the backward pass, what costs little, with `remat` everything.

        Args:
            module: called with so many `arrays`, then `train`.
        """
        # static_argnums counts self
        return nn.remat(module, static_argnums=(arrays + 1,), policy=None if self.remat else KEEP_MAPS)

    def __call__(
        self, x: jax.Array, *, train: bool = False, deep: bool = False
    ) -> jax.Array | list[jax.Array]:
        """Logits b x y z k, float32, of volumes `x` b x y z c; sizes are padded with zeros at the end to `multiple`.

        Args:
            x: any float type.
            train: batch statistics are taken and updated; with `deep_supervision`, a list: these logits, then those of
                the coarser steps, the next coarser first, whose padding is not cropped.
            deep: that list in any case.
        Raises:
            GeometryError: another number of axes or channels. It is a ValueError.
        """
        maps = self.hidden(x, train=train)
        y, decoded = maps[-1], []
        for step, skip in zip(self.decoder, maps[-2::-1]):
            y = step(y, skip, train)
            decoded.append(y)
        every = deep or self.is_initializing() or (train and self.deep_supervision)
        pairs = list(zip(self.head, decoded))[::-1]  # finest first
        logits = [head(y) for head, y in (pairs if every else pairs[:1])]
        seen = tuple(slice(-(-n // s)) for n, s in zip(x.shape[1:-1], self.stage_strides[0]))
        logits[0] = logits[0][(slice(None), *seen)]
        return logits if every else logits[0]

    @nn.nowrap
    def init(self, rngs: Any, x: jax.Array, **options: Any) -> dict[str, Any]:
        """Variables {"params": ...} and, for norm="batch", "batch_stats". Compiled whole: only draws, no forward pass."""
        return jax.jit(functools.partial(super().init, **options))(rngs, x)

    def hidden(self, x: jax.Array, *, train: bool = False) -> list[jax.Array]:
        """The encoder's maps (b x y z c), finest first, the bottleneck last; `x` is padded as `__call__` does.

        `model.apply({"params": params}, x, method="hidden")`. Raises GeometryError as `__call__`.
        """
        self._check_input(x)
        pads = [(0, -n % m) for n, m in zip(x.shape[1:-1], multiple(self))]
        if any(after for _, after in pads):
            x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        return self._encode(x, train)

    def _encode(self, x: jax.Array, train: bool) -> list[jax.Array]:
        maps = []
        for stage in self.encoder:
            x = stage(x, train)
            maps.append(x)
        return maps

    def _check_input(self, x: jax.Array) -> None:
        rank = len(self.stage_strides[0])
        if x.ndim != rank + 2 or x.shape[-1] != self.in_channels:
            raise GeometryError(
                f"{type(self).__name__}: input is {x.shape}, expected (b, {', '.join('xyz'[:rank])}, "
                f"{self.in_channels}): channels last, one scan needs a leading axis."
            )


def multiple(model: UNet) -> Size:
    """Voxels whose multiples need no padding."""
    return tuple(map(math.prod, zip(*model.stage_strides)))


def strides(model: UNet) -> tuple[Size, ...]:
    """Voxels of the input per voxel of each of the logits that training sees, finest first."""
    found = [model.stage_strides[0]]
    for stage in model.stage_strides[1:-1]:
        found.append(tuple(a * b for a, b in zip(found[-1], stage)))
    return tuple(found) if model.deep_supervision else (found[0],)


def stages(model: UNet) -> tuple[tuple[str, int], ...]:
    """Depth of each stage of the encoder, from 0; the decoder and the heads come last."""
    last = len(model.stage_strides)
    return ((r"^stem/", 0), *((rf"^encoder_{i}/", i) for i in range(last)), (r"", last))


ARCHITECTURE_OF_UNETS = Architecture(  # each network replaces name, build and torch
    name="",
    build=dict,
    fields=architecture.module_fields,
    multiple=multiple,
    strides=strides,
    stages=stages,
    parts={
        "stem": r"^encoder_0/block_0/conv/kernel$",
        "encoder": r"^(stem|encoder_\d+)/",
        "decoder": r"^decoder_\d+/",
        "head": r"^head_\d+/",
    },
    features="hidden",
)
