"""Quality Sentinel's network of slices (arXiv 2406.00327): a ResNet-50 on image and mask, gated by the organ's embedding.

Axes: b slices, h w pixels, c channels, e numbers of an embedding.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.errors import GeometryError
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture, TorchNames
from ukbob_jax.models.blocks import Conv, Norm
from ukbob_jax.sentinel.head import GatedHead, embedded, table

EXPANSION = 4  # channels of a block's output per channel inside
STEM = 7  # pixels, kernel of the first convolution


def he_fan_out(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Normal, variance 2 per number that one output channel writes to: torchvision's ResNets. Drawn flat."""
    deviation = math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1]))
    return deviation * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the strides: ResNet v1.5), 1 x 1 convolutions with batch norm, and a residual."""

    features: int  # inside
    strides: int = 1
    project: bool = False  # the residual passes a convolution of its own
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """b h w i to b h w 4o."""

        def conv_norm(
            y: jax.Array, features: int, size: int, strides: int, conv: str, norm: str
        ) -> jax.Array:
            y = Conv(
                features, (size, size), (strides, strides), dtype=self.dtype, draw=he_fan_out, name=conv
            )(y)
            return Norm("batch", dtype=self.dtype, name=norm)(y, train)

        out = self.features * EXPANSION
        y = jax.nn.relu(conv_norm(x, self.features, 1, 1, "conv1", "bn1"))
        y = jax.nn.relu(conv_norm(y, self.features, 3, self.strides, "conv2", "bn2"))
        y = conv_norm(y, out, 1, 1, "conv3", "bn3")
        if self.project:
            x = conv_norm(x, out, 1, self.strides, "downsample_conv", "downsample_norm")
        return jax.nn.relu(y + x)


class ResNet50(nn.Module):
    """Grades of masks on slices: channel 0 the image, channel 1 the mask, as `preprocessing.prepare` makes them.

    Args:
        num_classes_embedding: numbers of an embedding, e.
        hidden: see `GatedHead`; the released network has 50.
        squash: a sigmoid on the grade; the released network has none.
        bounded: see `GatedHead`; the released network is not. Give it with `squash`.
        detection: a second output, see `GatedHead`.
        learned_classes: the network learns an embedding of each of so many classes; it is then called with class
            numbers. 0: embeddings are given.
        depths: blocks of the four stages; (3, 4, 6, 3) is ResNet-50.
        width: channels of the stem.
        dtype: of the arithmetic; parameters and statistics are float32.
    """

    num_classes_embedding: int = 512
    hidden: int = 50
    squash: bool = False
    bounded: bool = False
    detection: bool = False
    learned_classes: int = 0
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    dtype: Any = jnp.float32

    @property
    def in_channels(self) -> int:
        """Image and mask."""
        return 2

    @property
    def out_channels(self) -> int:
        """The grade, and the score of `detection`."""
        return 1 + self.detection

    @nn.compact
    def __call__(
        self, slices: jax.Array, embedding: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Predicted Dice (b,) of `slices` (b h w 2) of the organs `embedding` (b e).

        Args:
            slices: any float type, h and w of any size.
            embedding: b e; with `learned_classes` class numbers (b,); `init` needs none.
            train: batch statistics are taken, and updated where `batch_stats` is mutable.
        Raises:
            GeometryError: another number of axes or channels.
            MismatchError: no embedding, or of another shape.
        """
        if slices.ndim != 4 or slices.shape[-1] != self.in_channels:
            raise GeometryError(
                f"ResNet50: slices are {slices.shape}, expected (b, h, w, 2): image and mask."
            )
        features = self._features(slices, train)
        head = GatedHead(self.hidden, self.squash, self.bounded, self.detection, self.dtype, name="head")
        return head(features, embedded(self, table(self), embedding, len(slices)))

    def _features(self, x: jax.Array, train: bool) -> jax.Array:
        """b h w 2 to b c."""
        conv = functools.partial(Conv, bias=True, dtype=self.dtype, draw=he_fan_out)
        x = conv(self.width, (STEM, STEM), (2, 2), name="conv1")(x)
        x = jax.nn.relu(Norm("batch", dtype=self.dtype, name="bn1")(x, train))
        around: Any = ((1, 1), (1, 1))
        x = nn.max_pool(x, (3, 3), (2, 2), around)
        self.sow("intermediates", "stem", x)
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                first = block == 0
                strides = 2 if first and stage else 1
                module = Bottleneck(
                    self.width * 2**stage, strides, first, self.dtype, name=f"layer{stage + 1}_{block}"
                )
                x = module(x, train)
            self.sow("intermediates", f"layer{stage + 1}", x)
        return x.mean((1, 2))


def _unused(model: ResNet50) -> dict[str, np.ndarray]:
    """Tensors of torchvision's network that the grader replaced and never reads: as a fresh batch norm, and zeros."""
    features, width = model.width * EXPANSION * 2 ** (len(model.depths) - 1), model.width
    shapes = {"conv1.weight": (width, 3, STEM, STEM), "fc.weight": (1000, features), "fc.bias": (1000,)}
    found: dict[str, np.ndarray] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        found[f"bn1.{name}"] = np.full(width, value, np.float32)
    found["bn1.num_batches_tracked"] = np.zeros((), np.int64)
    return {f"net.{name}": array for name, array in found.items()}


TORCH = TorchNames(
    rules=(
        (r"^head\.", ""),
        (r"^layer(\d+)_(\d+)\.", r"net.layer\1.\2."),
        (r"\.downsample_conv\.", ".downsample.0."),
        (r"\.downsample_norm\.", ".downsample.1."),
    ),
    auxiliary=r"^(head/(detector|norm)|classes)/",
    unused=_unused,
    aliases=((r"^(layer\d+|fc)\.", r"net.\1."),),  # torchvision's own files
    first=r"(.*?)attention1\.weight",
)
ARCHITECTURE = Architecture(
    name=__name__,
    build=functools.partial(architecture.build_module, ResNet50),
    fields=architecture.module_fields,
    multiple=lambda model: (32, 32),
    strides=lambda model: ((1, 1),),
    parts={"stem": r"^conv1/kernel$", "encoder": r"^(conv1|bn1|layer\d+_\d+)/", "head": r"^head/"},
    torch=TORCH,
)
