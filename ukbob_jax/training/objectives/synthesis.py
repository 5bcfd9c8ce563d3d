"""Volumes that never existed, made on the device from a key: regions of random shape, and random appearances of them.

After the randomised synthesis of RaSD, whose constants are not public, and of SynthSeg (Billot et al. 2023): smooth
Gaussian fields compete for each voxel, which gives regions at several scales; every region draws its own intensities.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ukbob_jax.data import augment
from ukbob_jax.errors import ConfigError
from ukbob_jax.training.step import Batch

LABELS = 255  # at most: labels are bytes, and the last one means "ignore" to losses of labels
SPREAD = 0.15  # standard deviation inside a region, at most; means lie in [0, 1]
GRAIN = (0.5, 2.0)  # voxels, of the filter of the texture inside regions
RADIUS = (1 / 16, 1 / 5)  # of an ellipsoid along each axis, over the side of the volume
VIEWS = 2  # appearances of each volume of regions, as neighbouring rows
DEGRADE = (  # what a scanner does to it
    functools.partial(augment.bias_field, probability=1.0),
    functools.partial(augment.blur, probability=0.5),
    functools.partial(augment.low_resolution, probability=0.5),
    functools.partial(augment.noise, probability=1.0, sigma=0.3),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionOptions:
    """How the regions of a volume are drawn.

    Attributes:
        fewest: smooth fields that compete for the voxels of a volume, at least.
        most: at most.
        finest: of the filters that make the fields smooth, voxels (standard deviation of a Gaussian).
        coarsest: at most; a quarter of the crop's shortest side where that is less.
        ellipsoids: laid over the regions, at most.
    """

    fewest: int = 4
    most: int = 32
    finest: float = 2.0
    coarsest: float = 24.0
    ellipsoids: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.fewest <= self.most:
            raise ConfigError(
                f"config.pretrain.fewest: {self.fewest} is not in 2..{self.most} (config.pretrain.most)."
            )
        if not 0 < self.finest <= self.coarsest:
            raise ConfigError(
                f"config.pretrain.finest: {self.finest} is not above 0 and at most {self.coarsest} "
                "(config.pretrain.coarsest)."
            )
        if self.ellipsoids < 0 or count(self) > LABELS:
            raise ConfigError(
                f"config.pretrain.ellipsoids: {self.ellipsoids} and {self.most} fields (config.pretrain.most) are not in "
                f"0..{LABELS} labels."
            )


def count(options: RegionOptions) -> int:
    """Return how many labels there may be, those of ellipsoids last."""
    return options.most + options.ellipsoids


def smooth_field(key: jax.Array, size: Sequence[int], sigma: jax.Array | float) -> jax.Array:
    """Draw Gaussian noise through a Gaussian filter of `sigma` voxels: float32 `x y z`, each voxel of variance 1.

    At the border the filter is cut and scaled; nothing comes in from the other side.
    """
    field = jax.random.normal(key, tuple(size))
    for axis, n in enumerate(size):
        place = jnp.arange(n, dtype=jnp.float32)
        weights = jnp.exp(-0.5 * jnp.square((place[:, None] - place[None]) / sigma))
        weights *= jax.lax.rsqrt(jnp.square(weights).sum(1, keepdims=True))
        field = jnp.moveaxis(jnp.tensordot(weights, field, (1, axis)), 0, axis)
    return field


def regions(key: jax.Array, size: Sequence[int], options: RegionOptions) -> jax.Array:
    """Draw the label of each voxel, uint8 `x y z` in 0..count(options)-1.

    Of K smooth fields, K uniform in `fewest`..`most`, each with a filter of its own, uniform in `finest`..`coarsest`
    voxels (and at most a quarter of the shortest side), the largest names the voxel. 0 to `ellipsoids` ellipsoids lie
    over them, their axes those of the volume, each with a label of its own from `most` on.
    """
    count_key, field_key, place_key = jax.random.split(key, 3)
    fields = jax.random.randint(count_key, (), options.fewest, options.most + 1)
    widest = max(options.finest, min(options.coarsest, min(size) / 4))

    def compete(
        best: tuple[jax.Array, jax.Array], number: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        noise_key, sigma_key = jax.random.split(jax.random.fold_in(field_key, number))
        sigma = jax.random.uniform(sigma_key, (), minval=options.finest, maxval=widest)
        field = smooth_field(noise_key, size, sigma)
        value, label = best
        higher = (field > value) & (number < fields)
        return (jnp.where(higher, field, value), jnp.where(higher, number, label)), None

    lowest = jnp.full(tuple(size), -jnp.inf), jnp.zeros(tuple(size), jnp.int32)
    (_, label), _ = jax.lax.scan(compete, lowest, jnp.arange(options.most))
    number_key, centre_key, radius_key = jax.random.split(place_key, 3)
    drawn = jax.random.randint(number_key, (), 0, options.ellipsoids + 1)
    sides = jnp.asarray(size, jnp.float32)[None]
    centres = jax.random.uniform(centre_key, (options.ellipsoids, 3)) * sides
    radii = (
        jax.random.uniform(radius_key, (options.ellipsoids, 3), minval=RADIUS[0], maxval=RADIUS[1]) * sides
    )
    for n in range(options.ellipsoids):
        squares = [
            jnp.square((jnp.arange(side) + 0.5 - centres[n, axis]) / radii[n, axis])
            for axis, side in enumerate(size)
        ]
        x, y, z = squares
        inside = x[:, None, None] + y[None, :, None] + z[None, None] < 1
        label = jnp.where(inside & (n < drawn), options.most + n, label)
    return label.astype(jnp.uint8)


def appearance(key: jax.Array, label: jax.Array, labels: int, channels: int) -> jax.Array:
    """Draw images of a volume of regions: float32 `x y z c`, each contrast with mean 0 and standard deviation 1.

    Each region of a contrast has a mean in [0, 1], and a texture, noise of one filter for all, with a standard deviation
    in [0, `SPREAD`]. Then a bias field, blur, thick slices and noise (`DEGRADE`).

    Args:
        key: of the draw.
        label: integers `x y z` in 0..labels-1.
        labels: how many there may be.
        channels: contrasts, each drawn by itself.
    """
    draw_key, degrade_key = jax.random.split(key)

    def contrast(key: jax.Array) -> jax.Array:
        mean_key, spread_key, grain_key, noise_key = jax.random.split(key, 4)
        mean = jax.random.uniform(mean_key, (labels,))
        spread = jax.random.uniform(spread_key, (labels,), maxval=SPREAD)
        grain = jax.random.uniform(grain_key, (), minval=GRAIN[0], maxval=GRAIN[1])
        at = label.astype(jnp.int32)
        return jnp.take(mean, at) + jnp.take(spread, at) * smooth_field(noise_key, label.shape, grain)

    image = _zscored(jax.vmap(contrast, out_axes=-1)(jax.random.split(draw_key, channels)))
    changed = augment.compose(*DEGRADE)(degrade_key, {"image": image[None]})
    return _zscored(changed["image"][0])


def pairs(
    key: jax.Array, batch: Batch, *, size: Sequence[int], channels: int, options: RegionOptions
) -> Batch:
    """Make volumes in place of those of a batch: neighbouring rows are two appearances of the same regions.

    Args:
        key: of the draw; a row's volume depends on it and on the row's number.
        batch: "image" `2b ...`, of which the number of rows alone is looked at; other arrays are kept, but for a mask of
            anonymised voxels.
        size: voxels x y z of the volumes.
        channels: contrasts.
        options: of the regions.
    Returns:
        "image" float32 `2b x y z c` and "label" uint8 `2b x y z`.
    """

    def pair(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        region_key, first, second = jax.random.split(key, 3)
        label = regions(region_key, size, options)
        looks = [appearance(k, label, count(options), channels) for k in (first, second)]
        return jnp.stack(looks), jnp.stack([label] * VIEWS)

    image, label = jax.vmap(pair)(jax.random.split(key, len(batch["image"]) // VIEWS))
    kept = {name: array for name, array in batch.items() if name != "anonymised"}
    rows = {"image": image, "label": label}
    return {**kept, **{name: array.reshape(-1, *array.shape[2:]) for name, array in rows.items()}}


def _zscored(image: jax.Array) -> jax.Array:
    """`x y z c` with mean 0 and standard deviation 1 of each contrast; 0 where it is constant."""
    centred = image - image.mean((0, 1, 2), keepdims=True)
    square = jnp.square(centred).mean((0, 1, 2), keepdims=True)
    return centred * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
