"""What MedNeXt is built from: convolutions drawn as PyTorch draws them, and the block of all its stages.

Axes: `b` batch, `v` voxels along two or three axes, `c` channels. Parameters are float32; `dtype` is that of the
arithmetic; statistics are float32 at least.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ukbob_jax.models.blocks import MAPS, Norm
from ukbob_jax.models.kernels.buffers import keep
from ukbob_jax.models.kernels.conv import pointwise
from ukbob_jax.models.kernels.depthwise import depthwise, depthwise_transpose
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.models.kernels.norm import broadcast_channels

SAMPLINGS = (
    "keep",
    "down",
    "up",
)  # of a block: as many voxels, every other one, twice as many along each axis
NORMS = {"group": "instance_affine", "layer": "layer"}  # the original's names -> kinds of `Norm`
EPSILON = 1e-6  # of the response normalisation


class Depthwise(nn.Module):
    """A kernel of its own for every channel, zeros around, and a bias; up: 2 n - 1 voxels along an axis of n."""

    size: int  # voxels along each axis, odd
    sampling: str = "keep"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b v c to b v c."""
        rank, channels = x.ndim - 2, x.shape[-1]
        draw = _uniform(self.size**rank)
        kernel = self.param("kernel", draw, ((self.size,) * rank + (1, channels)), jnp.float32)
        kernel = jnp.squeeze(kernel, -2).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.sampling == "up":
            y = depthwise_transpose(x, kernel)
        else:
            y = depthwise(x, kernel, 2 if self.sampling == "down" else 1)
        return _with_bias(self, y, draw)


class Pointwise(nn.Module):
    """A matrix product at every voxel, and a bias; up: 2 n - 1 voxels along an axis of n, those between get the bias."""

    features: int
    sampling: str = "keep"
    transposed: bool = False  # in PyTorch, whose draw of such a kernel then looks at the outputs
    dtype: Any = jnp.float32
    accumulate: Any = None  # type of the result, where it is not `dtype`

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b v c to b v features."""
        rank, inputs = x.ndim - 2, x.shape[-1]
        draw = _uniform(self.features if self.transposed else inputs)
        kernel = self.param("kernel", draw, (1,) * rank + (inputs, self.features), jnp.float32)
        kernel = kernel.reshape(inputs, self.features).astype(self.dtype)
        if self.sampling == "down":
            x = x[(slice(None), *(slice(None, None, 2),) * rank)]
        y = pointwise((x.astype(self.dtype),), kernel, self.accumulate or self.dtype)
        if self.sampling == "up":
            y = _zeros_around(y, before=0, between=1)
        return _with_bias(self, y, draw)


class Block(nn.Module):
    """Depthwise convolution, norm, expansion, GELU, compression, with a residual (MedNeXt, Roy et al. 2023, figure 1).

    A block that samples up has one layer of zeros in front of each axis, so that n voxels become 2 n.
    """

    features: int
    expansion: int  # channels between the two matrix products, per channel that comes in
    size: int  # voxels of the depthwise kernel along each axis, odd
    sampling: str = "keep"
    residual: bool = True  # of a block that samples down or up: through a strided matrix product
    norm: str = "group"
    grn: bool = False  # response normalisation, the block of version 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """b v c to b v features."""
        conv = functools.partial(Pointwise, dtype=self.dtype)
        y = Depthwise(self.size, self.sampling, self.dtype, name="conv1")(x)
        y = Norm(NORMS[self.norm], dtype=self.dtype, name="norm")(keep(y, MAPS))
        y = keep(conv(self.expansion * x.shape[-1], name="conv2")(y), MAPS)
        y = nn.gelu(y, approximate=False)
        if self.grn:
            y = self._respond(y)
        y = conv(self.features, name="conv3")(y)
        if self.sampling == "keep":
            return x + y if self.residual else y
        if self.residual:
            up = self.sampling == "up"
            y = y + conv(self.features, self.sampling, transposed=up, name="res_conv")(x)
        return _zeros_around(y, before=1, between=0) if self.sampling == "up" else y

    def _respond(self, x: jax.Array) -> jax.Array:
        """Each channel weighed by its norm over all voxels among those of the others (ConvNeXt V2, Woo et al. 2023)."""
        shape = (1,) * (x.ndim - 1) + x.shape[-1:]
        gamma = self.param("grn_gamma", nn.initializers.zeros, shape, jnp.float32)
        beta = self.param("grn_beta", nn.initializers.zeros, shape, jnp.float32)
        wide = x.astype(at_least_float32(x.dtype))
        power = jnp.square(wide).sum(tuple(range(1, x.ndim - 1)), keepdims=True)
        some = power > 0  # the root has no gradient at 0
        norm = jnp.where(some, jnp.sqrt(jnp.where(some, power, 1)), 0)  # b 1.. c
        share = norm / (norm.mean(-1, keepdims=True) + EPSILON)
        return (wide * (1 + gamma * share) + beta).astype(x.dtype)


def _uniform(fan: int) -> Callable[..., jax.Array]:
    """Draws within 1 / sqrt(fan), PyTorch's default for kernel and bias of a convolution; flat, as `kernel_init`."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, (math.prod(shape),), dtype, -(fan**-0.5), fan**-0.5).reshape(shape)

    return draw


def _with_bias(module: nn.Module, y: jax.Array, draw: Callable[..., jax.Array]) -> jax.Array:
    bias = module.param("bias", draw, y.shape[-1:], jnp.float32)
    return y + broadcast_channels(bias.astype(y.dtype), y.ndim)


def _zeros_around(x: jax.Array, *, before: int, between: int) -> jax.Array:
    """`x` (b v c) with so many zeros before the first voxel of each axis, and between neighbours."""
    edges = [(0, 0, 0), *[(before, 0, between)] * (x.ndim - 2), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)
