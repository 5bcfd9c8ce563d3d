"""Models Genesis: an image is spoilt in four ways, and the network gives it back (Zhou et al. 2021).

In order: flips, which the target has too; voxels shuffled inside small windows; a monotone map of the intensities; and
in-painting (a few boxes of noise) or out-painting (noise but for a few boxes). The loss is the mean squared error over
the whole crop, but for anonymised voxels.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import forward
from ukbob_jax.training.objectives.masked import masked_mse
from ukbob_jax.training.objectives.shuffle import shuffled
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params

FORMS = ("paper", "nnssl")
FLIPS = 3  # at most
BOXES = 5  # of noise, or kept, at most
MARGIN = 3  # voxels between a box and the border, at least
SMALLEST = 14  # voxels of a side, for boxes of 4/7 of it and margins
CURVE = 1000  # points of the intensity map


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenesisOptions:
    """The fields of `config.pretrain` for "genesis"; the probabilities are those of the paper.

    Attributes:
        flip: chance of a flip, and of one more after each.
        shuffle: chance that windows are shuffled.
        windows: how many.
        intensity: chance of another intensity map; half of them are inverted.
        paint: chance of painting.
        inside: share of in-painting in it; the rest is out-painting.
        form: "paper": intensities are mapped, and noise is drawn, between the least and the largest value of each contrast
            of the crop; flips are along x, y and z; all contrasts are shuffled alike. "nnssl": intensities are mapped as
            they are, so that those outside [0, 1] collapse to its ends; noise is in [0, 1]; flips are along the channels,
            x or y; the first contrast alone is shuffled.
    """

    flip: float = 0.4
    shuffle: float = 0.5
    windows: int = 10_000
    intensity: float = 0.9
    paint: float = 0.9
    inside: float = 0.2
    form: str = "paper"

    def __post_init__(self) -> None:
        for name in ("flip", "shuffle", "intensity", "paint", "inside"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"config.pretrain.{name}: {getattr(self, name)} is not in [0, 1].")
        if self.windows < 1:
            raise ConfigError(f"config.pretrain.windows: {self.windows} is less than 1.")
        if self.form not in FORMS:
            raise ConfigError(
                f"config.pretrain.form: {self.form!r} is unknown; choose one of {', '.join(FORMS)}."
            )


def bezier(
    values: jax.Array, first: jax.Array, second: jax.Array, inverted: jax.Array | bool = False
) -> jax.Array:
    """Map values in [0, 1] by a monotone cubic Bezier curve from (0, 0) to (1, 1); those beyond take the ends.

    x(t) and y(t) are both sorted, so the map rises; inverted, it is y(1 - t) at x(t), and falls.

    Args:
        values: of any shape, float32.
        first: `2`, the inner point x y near the start, in the unit square.
        second: `2`, the other one.
        inverted: whether the map falls.
    """
    t = jnp.linspace(0, 1, CURVE)
    x, y = (3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 for a, b in zip(first, second))
    x, y = jnp.sort(x), jnp.sort(y)
    return jnp.interp(values, x, jnp.where(inverted, y[::-1], y))


def painted(image: jax.Array, boxes: jax.Array, noise: jax.Array, outside: jax.Array | bool) -> jax.Array:
    """Noise inside boxes, or outside of all of them.

    Args:
        image: `x y z c`.
        boxes: int32 `n 6`, start x y z and size x y z; those of size 0 are none.
        noise: `x y z c`.
        outside: True keeps the boxes and replaces the rest.
    """
    inside = jnp.zeros(image.shape[:3], bool)
    for box in boxes:
        along = []
        for axis, n in enumerate(image.shape[:3]):
            place = jnp.arange(n, dtype=boxes.dtype)
            along.append((place >= box[axis]) & (place < box[axis] + box[3 + axis]))
        x, y, z = along
        inside |= x[:, None, None] & y[None, :, None] & z[None, None]
    return jnp.where((inside != outside)[..., None], noise, image)


def draw_boxes(key: jax.Array, size: tuple[int, ...], outside: jax.Array) -> jax.Array:
    """Draw the boxes of in-painting (sides 1/6 to 1/3 of the crop's) or out-painting (3/7 to 4/7): int32 `BOXES 6`.

    Each further one comes with chance 0.95; out-painting has one at least.
    """
    more_key, side_key, place_key = jax.random.split(key, 3)
    sides = jnp.asarray(size, jnp.int32)[None]
    sevenths = sides - 3 * sides // 7  # the longest window that out-painting keeps
    low = jnp.where(outside, sides - 4 * sides // 7, sides // 6)
    high = jnp.where(outside, sevenths, sides // 3)
    drawn = jax.random.randint(side_key, (BOXES, 3), low, high + 1)
    starts = jax.random.randint(place_key, (BOXES, 3), MARGIN, sides - drawn - MARGIN + 1)
    go_on = jax.random.uniform(more_key, (BOXES,)) < 0.95
    go_on = go_on | (outside & (jnp.arange(BOXES) == 0))
    there = jnp.cumprod(go_on.astype(jnp.int32))
    return jnp.concatenate([starts, drawn * there[:, None]], axis=1)


def pair(key: jax.Array, image: jax.Array, options: GenesisOptions) -> tuple[jax.Array, jax.Array]:
    """Make what the network sees and what it shall give back, both `x y z c`, of one sample.

    Raises:
        ConfigError: a side of the crop is too short for the boxes.
    """
    if min(image.shape[:3]) < SMALLEST:
        raise ConfigError(
            f"config.data.crop: {tuple(image.shape[:3])} has a side below {SMALLEST} voxels, too short for painting."
        )
    flip_key, shuffle_key, map_key, paint_key, choice_key = jax.random.split(key, 5)
    target = _flipped(flip_key, image, options)
    low, reach = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1))
    if options.form == "paper":
        low = target.min(axis=(0, 1, 2), keepdims=True)
        reach = target.max(axis=(0, 1, 2), keepdims=True) - low
    choices = jax.random.uniform(choice_key, (5,))
    moved = shuffled(shuffle_key, target, options.windows)
    if options.form == "nnssl":
        moved = jnp.concatenate([moved[..., :1], target[..., 1:]], axis=-1)
    seen = jnp.where(choices[0] < options.shuffle, moved, target)
    first, second = jax.random.uniform(map_key, (2, 2))
    scaled = (seen - low) / jnp.where(reach > 0, reach, 1)
    mapped = low + reach * bezier(scaled, first, second, choices[2] < 0.5)
    seen = jnp.where(choices[1] < options.intensity, mapped, seen)
    box_key, noise_key = jax.random.split(paint_key)
    outside = choices[4] >= options.inside
    noise = low + reach * jax.random.uniform(noise_key, image.shape)
    boxes = draw_boxes(box_key, image.shape[:3], outside)
    seen = jnp.where(choices[3] < options.paint, painted(seen, boxes, noise, outside), seen)
    return seen, target


def genesis(model: nn.Module, options: GenesisOptions) -> Objective:
    """Models Genesis. Batches have "image" `b x y z c`, and may have "anonymised" `b x y z`.

    Args:
        model: with as many output as input channels.
        options: how images are spoilt.
    """

    rebuild = genesis_pass(model, options)

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        shown, anonymised, model_state = rebuild(params, state, batch, key)
        every = jnp.ones(shown.truth.shape[:4], bool)
        return masked_mse(shown.rebuilt, shown.truth, every, anonymised), (model_state, {})

    return objective


def genesis_pass(
    model: nn.Module, options: GenesisOptions
) -> Callable[[Params, TrainState, Batch, jax.Array], tuple[forward.Rebuilt, jax.Array | None, ModelState]]:
    """What `genesis` computes before its loss; the second is what was anonymised, flipped as the image."""

    def rebuild(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[forward.Rebuilt, jax.Array | None, ModelState]:
        pair_key, dropout_key = jax.random.split(key)
        image = batch["image"]
        channels = image.shape[-1]
        if "anonymised" in batch:  # flipped with the image, and otherwise left alone
            image = jnp.concatenate(
                [image, (batch["anonymised"] != 0).astype(image.dtype)[..., None]], axis=-1
            )
        flip_keys, keys = (jax.random.split(k, len(image)) for k in jax.random.split(pair_key))
        image = jax.vmap(lambda k, x: _flipped(k, x, options))(flip_keys, image)
        still = dataclasses.replace(options, flip=0.0)
        seen, target = jax.vmap(lambda k, x: pair(k, x, still))(keys, image[..., :channels])
        prediction, model_state = forward.dense(model, params, state, seen, dropout_key)
        anonymised = image[..., channels] if "anonymised" in batch else None
        return forward.Rebuilt(seen, prediction, target), anonymised, model_state

    return rebuild


def _flipped(key: jax.Array, image: jax.Array, options: GenesisOptions) -> jax.Array:
    """`image` `x y z c` after up to `FLIPS` flips, each along one of three axes."""
    again_key, axis_key = jax.random.split(key)
    go_on = jnp.cumprod((jax.random.uniform(again_key, (FLIPS,)) < options.flip).astype(jnp.int32))
    axes = (0, 1, 2) if options.form == "paper" else (0, 1, 3)
    which = jax.random.randint(axis_key, (FLIPS,), 0, len(axes))
    for place, axis in enumerate(axes):
        odd = jnp.sum(go_on * (which == place)) % 2 == 1
        image = jnp.where(odd, jnp.flip(image, axis), image)
    return image
