"""A grader of whole masks: the encoder of any network of `models/` on a cube of image and mask around the organ.

Axes: b cubes, x y z voxels, c channels, e numbers of an embedding.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.errors import ConfigError, GeometryError, MismatchError
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture
from ukbob_jax.models.blocks import Conv, Norm, kernel_init
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.sentinel.head import GatedHead, embedded, table

SMALL = {
    "n_stages": 4,
    "features_per_stage": (16, 32, 64, 128),
    "strides": (1, 2, 2, 2),
    "n_conv_per_stage": 1,
}  # of the default network, plain_unet
OUTLINE = "outline"  # name of the drawing's logits among the intermediates
PLACE = 4  # numbers of a cube's place: size and centre
LEAST = 1e-3  # voxels: below this a region has no mean


class VolumeGrader(nn.Module):
    """Grades of masks in cubes: channel 0 the image, channel 1 the mask, as `preprocessing.prepare_cubes` makes them.

    Of each map of the encoder four numbers per channel are kept: its mean in the mask, near the mask's surface, and
    everywhere, and its maximum; instance norms leave little in the mean alone. What the organ is and where the cube lies
    pass two layers together, so that a mask can be found to be in the wrong place, and go into gates and features.

    With `outline` the grader also draws the organ as it should be, and its grade starts from the Dice of the mask with
    that drawing: a decoder, told what the organ is and where the cube lies, goes from the encoder's maps back to the cube's
    voxels. Its logits (b x y z) are sown as "intermediates"; training compares them with the true mask.

    Args:
        num_classes_embedding: numbers of an embedding, e.
        network: its architecture must say where the encoder's maps are (`Architecture.features`).
        network_fields: of the network, a mapping or pairs; channels are set here.
        hidden, detection: see `GatedHead`.
        context: width of those two layers.
        outline: width of the decoder; 0: none.
        squash: a sigmoid on the grade; an outline needs it.
        bounded: see `GatedHead`.
        learned_classes: see `ResNet50`.
        dtype: of the arithmetic; parameters are float32.
    """

    num_classes_embedding: int
    network: str = "plain_unet"
    network_fields: Any = tuple(SMALL.items())
    hidden: int = 50
    context: int = 64
    outline: int = 0
    squash: bool = True
    bounded: bool = True
    detection: bool = False
    learned_classes: int = 0
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Fields become pairs, so that modules can be compared and hashed."""
        fields = self.network_fields
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        object.__setattr__(self, "network_fields", architecture.tuples([[k, v] for k, v in pairs]))
        if self.outline and not self.squash:
            raise ConfigError("VolumeGrader: outline needs squash=True, since its grade is a sigmoid.")
        super().__post_init__()

    @property
    def in_channels(self) -> int:
        """Image and mask."""
        return 2

    @property
    def out_channels(self) -> int:
        """The grade, and the score of `detection`."""
        return 1 + self.detection

    @nn.nowrap
    def built(self) -> nn.Module:
        """The network whose encoder is used.

        Raises:
            ConfigError: no such network or field, or one that does not say where its maps are.
        """
        said = architecture.find(self.network)
        if not said.features:
            raise ConfigError(
                f"network {self.network!r} does not say where its encoder's maps are; take another."
            )
        channels = {"in_channels": self.in_channels, "out_channels": 1, "dtype": jnp.dtype(self.dtype).name}
        return said.build({**dict(self.network_fields), **channels})

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.encoder = self.built()
        self.classes = table(self)
        self.place = [nn.Dense(self.context, dtype=self.dtype, kernel_init=kernel_init) for _ in range(2)]
        self.drawing = Outline(self.outline, self.dtype) if self.outline else None
        squash = self.squash and not self.outline  # there the sigmoid comes later
        self.head = GatedHead(self.hidden, squash, self.bounded, self.detection, self.dtype)

    def __call__(
        self,
        cubes: jax.Array,
        embedding: jax.Array | None = None,
        place: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Predicted Dice (b,) of `cubes` (b x y z 2) of the organs `embedding` (b e).

        Args:
            cubes: any float type.
            embedding: b e; with `learned_classes` class numbers (b,); `init` needs none.
            place: of each cube, b 4, see `preprocessing.place`; None: zeros, for a grader that is never told.
            train: as the network's.
        Raises:
            GeometryError: another number of axes or channels.
            MismatchError: embeddings or places are not those of a batch.
        """
        if cubes.ndim != 5 or cubes.shape[-1] != self.in_channels:
            raise GeometryError(
                f"VolumeGrader: cubes are {cubes.shape}, expected (b, x, y, z, 2): image and mask."
            )
        batch = len(cubes)
        place = jnp.zeros((batch, PLACE)) if place is None else place
        if place.shape != (batch, PLACE):
            raise MismatchError(
                f"VolumeGrader: places are {place.shape}, expected ({batch}, {PLACE}), one per cube."
            )
        maps = getattr(self.encoder, architecture.find(self.network).features)(cubes, train=train)
        mask = (cubes[..., 1:] + 1) / 2
        context = jnp.concatenate([embedded(self, self.classes, embedding, batch), place], -1)
        for layer in self.place:
            context = jax.nn.gelu(layer(context))
        features = jnp.concatenate([*(pooled(m, mask) for m in maps), context.astype(jnp.float32)], -1)
        if self.drawing is None:
            return self.head(features, context)
        drawn = self.drawing(maps, context, cubes.shape[1:4])
        self.sow("intermediates", OUTLINE, drawn)
        agreement = soft_dice(jax.nn.sigmoid(drawn), mask[..., 0])
        out: Any = self.head(features, context)
        grade = jax.nn.sigmoid((out[0] if self.detection else out) + jax.scipy.special.logit(agreement))
        return (grade, out[1]) if self.detection else grade


class Outline(nn.Module):
    """A decoder from an encoder's maps to one number per voxel of the cube, modulated by what the organ is.

    Args:
        width: channels.
        dtype: of the arithmetic.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], context: jax.Array, shape: Sequence[int]) -> jax.Array:
        """Logits b x y z of maps b x' y' z' c, finest first, and context b n; `shape`: x y z."""
        drawn = jnp.zeros((), self.dtype)
        for level, found in reversed(list(enumerate(maps))):
            found = found.astype(self.dtype)
            if drawn.ndim:
                drawn = jax.image.resize(drawn, (*found.shape[:4], self.width), "linear")
            drawn = drawn + nn.Dense(
                self.width, dtype=self.dtype, kernel_init=kernel_init, name=f"side_{level}"
            )(found)
            drawn = Norm("instance_affine", dtype=self.dtype, name=f"norm_{level}")(drawn)
            told = nn.Dense(2 * self.width, dtype=self.dtype, kernel_init=kernel_init, name=f"told_{level}")(
                context
            )
            scale, shift = jnp.split(told[:, None, None, None], 2, -1)
            drawn = jax.nn.leaky_relu(drawn * (1 + scale) + shift)
            drawn = jax.nn.leaky_relu(Conv(self.width, 3, dtype=self.dtype, name=f"conv_{level}")(drawn))
        logits = nn.Dense(1, dtype=self.dtype, kernel_init=kernel_init, name="logits")(drawn)
        return jax.image.resize(logits[..., 0].astype(jnp.float32), (len(logits), *shape), "linear")


def soft_dice(drawn: jax.Array, mask: jax.Array) -> jax.Array:
    """2 sum(d m) / (sum(d) + sum(m)) of b x y z each, kept within (0, 1) so that its logit is finite: b."""
    axes = (1, 2, 3)
    total = drawn.sum(axes) + mask.sum(axes)
    return jnp.clip(2 * (drawn * mask).sum(axes) / jnp.maximum(total, LEAST), LEAST, 1 - LEAST)


def pooled(features: jax.Array, mask: jax.Array) -> jax.Array:
    """Means of a map (b x y z c) inside a mask, near its surface and everywhere, and its maximum: b 4c, float32 at least.

    The mask (b X Y Z 1, 0 to 1) is averaged to the map's voxels. Near the surface is 4 m (1 - m) of the mask m blurred over
    3 voxels. An empty region gives 0.
    """
    features = features.astype(at_least_float32(features.dtype))
    mask = jax.image.resize(mask.astype(features.dtype), (*features.shape[:4], 1), "linear")
    blurred = _blurred(mask)
    axes = (1, 2, 3)

    def mean(weight: jax.Array) -> jax.Array:
        total = weight.sum(axes)
        return jnp.where(total > LEAST, (features * weight).sum(axes) / jnp.maximum(total, LEAST), 0)

    parts = (mean(mask), mean(4 * blurred * (1 - blurred)), features.mean(axes), features.max(axes))
    return jnp.concatenate(parts, -1)


def _blurred(mask: jax.Array) -> jax.Array:
    """The mean of the 3 x 3 x 3 voxels around each that lie in the volume, b x y z c.

    How many these are is known without the device; `count_include_pad=False` has XLA add them up while it compiles.
    """
    inside = [
        np.convolve(np.ones(n), np.ones(3), "same")[:n] if n > 2 else np.full(n, n) for n in mask.shape[1:4]
    ]
    share = 27 / np.einsum("x,y,z->xyz", *inside)
    return nn.avg_pool(mask, (3, 3, 3), (1, 1, 1), "SAME") * jnp.asarray(share[None, ..., None], mask.dtype)


ARCHITECTURE = Architecture(
    name=__name__,
    build=functools.partial(architecture.build_module, VolumeGrader),
    fields=architecture.module_fields,
    multiple=lambda model: architecture.find(model.network).multiple(model.built()),
    strides=lambda model: ((1, 1, 1),),
    parts={"encoder": r"^encoder/", "head": r"^(head|place_\d+|classes|drawing)/"},
)
