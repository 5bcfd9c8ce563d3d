"""A grader of whole masks: the encoder of any network of `models/` on a cube of image and mask around the organ.

Axes: b cubes, x y z voxels, c channels, e numbers of an embedding.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax.errors import ConfigError, GeometryError, MismatchError
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture
from ukbob_jax.models.kernels.dtypes import at_least_float32
from ukbob_jax.sentinel.head import GatedHead, embedded, table

SMALL = {
    "n_stages": 4,
    "features_per_stage": (16, 32, 64, 128),
    "strides": (1, 2, 2, 2),
    "n_conv_per_stage": 1,
}  # of the default network, plain_unet
LEAST = 1e-3  # voxels: below this a region has no mean


class VolumeGrader(nn.Module):
    """Grades of masks in cubes: channel 0 the image, channel 1 the mask, as `preprocessing.prepare_cubes` makes them.

    Of each map of the encoder four numbers per channel are kept: its mean in the mask, near the mask's surface, and
    everywhere, and its maximum; instance norms leave little in the mean alone. Behind them stands the size of the cube.

    Args:
        num_classes_embedding: numbers of an embedding, e.
        network: its architecture must say where the encoder's maps are (`Architecture.features`).
        network_fields: of the network, a mapping or pairs; channels are set here.
        hidden, detection: see `GatedHead`.
        squash: a sigmoid on the grade.
        learned_classes: see `ResNet50`.
        dtype: of the arithmetic; parameters are float32.
    """

    num_classes_embedding: int
    network: str = "plain_unet"
    network_fields: Any = tuple(SMALL.items())
    hidden: int = 50
    squash: bool = True
    detection: bool = False
    learned_classes: int = 0
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Fields become pairs, so that modules can be compared and hashed."""
        fields = self.network_fields
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        object.__setattr__(self, "network_fields", architecture.tuples([[k, v] for k, v in pairs]))
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
        self.head = GatedHead(self.hidden, self.squash, self.detection, self.dtype)

    def __call__(
        self,
        cubes: jax.Array,
        embedding: jax.Array | None = None,
        side_mm: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Predicted Dice (b,) of `cubes` (b x y z 2) of the organs `embedding` (b e).

        Args:
            cubes: any float type.
            embedding: b e; with `learned_classes` class numbers (b,); `init` needs none.
            side_mm: of each cube, b; None: not known, as in a grader that never sees it.
            train: as the network's.
        Raises:
            GeometryError: another number of axes or channels.
            MismatchError: no embedding, or sides, of this batch.
        """
        if cubes.ndim != 5 or cubes.shape[-1] != self.in_channels:
            raise GeometryError(
                f"VolumeGrader: cubes are {cubes.shape}, expected (b, x, y, z, 2): image and mask."
            )
        batch = len(cubes)
        if side_mm is not None and side_mm.shape != (batch,):
            raise MismatchError(
                f"VolumeGrader: sides are {side_mm.shape}, expected one per cube, ({batch},)."
            )
        maps = getattr(self.encoder, architecture.find(self.network).features)(cubes, train=train)
        mask = (cubes[..., 1:] + 1) / 2
        size = jnp.zeros((batch,)) if side_mm is None else jnp.log(side_mm.astype(jnp.float32) / 100)
        features = jnp.concatenate([*(pooled(m, mask) for m in maps), size[:, None].astype(jnp.float32)], -1)
        return self.head(features, embedded(self, self.classes, embedding, batch))


def pooled(features: jax.Array, mask: jax.Array) -> jax.Array:
    """Means of a map (b x y z c) inside a mask, near its surface and everywhere, and its maximum: b 4c, float32 at least.

    The mask (b X Y Z 1, 0 to 1) is averaged to the map's voxels. Near the surface is 4 m (1 - m) of the mask m blurred over
    3 voxels. An empty region gives 0.
    """
    features = features.astype(at_least_float32(features.dtype))
    mask = jax.image.resize(mask.astype(features.dtype), (*features.shape[:4], 1), "linear")
    blurred = nn.avg_pool(mask, (3, 3, 3), (1, 1, 1), "SAME", count_include_pad=False)
    axes = (1, 2, 3)

    def mean(weight: jax.Array) -> jax.Array:
        total = weight.sum(axes)
        return jnp.where(total > LEAST, (features * weight).sum(axes) / jnp.maximum(total, LEAST), 0)

    parts = (mean(mask), mean(4 * blurred * (1 - blurred)), features.mean(axes), features.max(axes))
    return jnp.concatenate(parts, -1)


ARCHITECTURE = Architecture(
    name=__name__,
    build=functools.partial(architecture.build_module, VolumeGrader),
    fields=architecture.module_fields,
    multiple=lambda model: architecture.find(model.network).multiple(model.built()),
    strides=lambda model: ((1, 1, 1),),
    parts={"encoder": r"^encoder/", "head": r"^head/"},
)
