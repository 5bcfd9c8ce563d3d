"""Volume Fusion: two images are mixed region by region, and the network tells how much of which is where.

With classes 0..K-1 a voxel of class k is alpha F + (1 - alpha) B, alpha = k / (K - 1); the network learns k. Regions are
free boxes of two subjects (nnssl's form) or the cells of a grid over two crops of one scan (Wang et al. 2023).
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.errors import ConfigError
from ukbob_jax.training import losses
from ukbob_jax.training.objectives import forward
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params

FORMS = ("paper", "nnssl")
PAIR = 2  # neighbouring rows of a batch that are mixed: foreground, background


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """The fields of `config.pretrain` for "fusion".

    Attributes:
        form: "paper": the cells of one grid over two crops of one scan. "nnssl": boxes over two subjects.
        classes: K, background included.
        share: of the cells that get a class from 1 on ("paper").
        smallest: side of a cell or box in voxels, at least.
        largest: side of a cell, at most ("paper").
        fewest: boxes, at least ("nnssl").
        most: boxes, at most ("nnssl").
        widest: side of a box over that of the crop, at most ("nnssl").
    """

    form: str = "paper"
    classes: int = 5
    share: float = 0.7
    smallest: int = 8
    largest: int = 32
    fewest: int = 10
    most: int = 39
    widest: float = 0.625

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(
                f"config.pretrain.form: {self.form!r} is unknown; choose one of {', '.join(FORMS)}."
            )
        if self.classes < 2:
            raise ConfigError(f"config.pretrain.classes: {self.classes} is less than 2.")
        if not 0 < self.share <= 1:
            raise ConfigError(f"config.pretrain.share: {self.share} is not above 0 and at most 1.")
        if not 1 <= self.smallest <= self.largest:
            raise ConfigError(
                f"config.pretrain.smallest: {self.smallest} is not in 1..{self.largest} (config.pretrain.largest)."
            )
        if not 0 <= self.fewest <= self.most:
            raise ConfigError(
                f"config.pretrain.fewest: {self.fewest} is not in 0..{self.most} (config.pretrain.most)."
            )
        if not 0 < self.widest <= 1:
            raise ConfigError(f"config.pretrain.widest: {self.widest} is not above 0 and at most 1.")


def volume_fusion(
    foreground: jax.Array, background: jax.Array, boxes: jax.Array, classes: jax.Array, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Mix two images in boxes (nnssl's form).

    Args:
        foreground: `b x y z c`.
        background: `b x y z c`.
        boxes: `b n 6` integers: start x y z, size x y z; later ones overwrite earlier ones, those of size 0 do nothing.
        classes: `b n` integers in 0..num_classes-1, of the boxes. Class 0 is the background, as beyond all boxes.
        num_classes: K.
    Returns:
        The mixed image `b x y z c`, and the class of each voxel, int32 `b x y z`.
    """
    boxes, classes = jnp.asarray(boxes, jnp.int32), jnp.asarray(classes, jnp.int32)
    target = jnp.zeros(foreground.shape[:4], jnp.int32)
    for n in range(boxes.shape[1]):  # unrolled: one kernel that writes the target once
        target = jnp.where(_inside(boxes[:, n], target.shape[1:]), classes[:, n, None, None, None], target)
    return mixed(foreground, background, target, num_classes), target


def mixed(foreground: jax.Array, background: jax.Array, target: jax.Array, num_classes: int) -> jax.Array:
    """alpha F + (1 - alpha) B, `b x y z c`, for the classes `target` `b x y z`."""
    alpha = target[..., None].astype(foreground.dtype) / (num_classes - 1)
    return alpha * foreground + (1 - alpha) * background


def tiled_classes(
    size: tuple[int, ...],
    cell: jax.Array,
    first: jax.Array,
    rank: jax.Array,
    classes: jax.Array,
    share: float,
) -> jax.Array:
    """The class of each voxel of one crop under a grid of cells (the original form).

    Args:
        size: voxels of the crop, x y z.
        cell: int32 `3`, side of a cell.
        first: int32 `3`, where the first cell starts, in 0..size % cell. Voxels outside whole cells are background.
        rank: float `i j k`, at least as many as there are cells: those of the lowest numbers, int(share n) of the n
            whole cells, get their class, the others 0.
        classes: int32 `i j k`, in 1..K-1.
        share: of the cells.
    Returns:
        int32 `x y z`.
    """
    whole = jnp.asarray(size, jnp.int32) // cell  # cells along each axis
    numbers = [jnp.arange(n, dtype=jnp.int32) for n in rank.shape]
    exists = _outer([number < whole[axis] for axis, number in enumerate(numbers)])
    order = jnp.argsort(jnp.argsort(jnp.where(exists, rank, jnp.inf).ravel())).reshape(rank.shape)
    chosen = exists & (order < jnp.floor(share * jnp.prod(whole) + 1e-4).astype(jnp.int32))
    of_cell = jnp.where(chosen, classes, 0)
    index = [(jnp.arange(n, dtype=jnp.int32) - first[axis]) // cell[axis] for axis, n in enumerate(size)]
    inside = _outer([(i >= 0) & (i < whole[axis]) for axis, i in enumerate(index)])
    for axis, i in enumerate(index):
        of_cell = jnp.take(of_cell, jnp.clip(i, 0, of_cell.shape[axis] - 1), axis=axis)
    return jnp.where(inside, of_cell, 0)


def draw_tiles(key: jax.Array, size: tuple[int, ...], options: FusionOptions) -> jax.Array:
    """Draw a grid of cells for one crop, and its classes: int32 `x y z`.

    Raises:
        ConfigError: a side of the crop is shorter than a cell may be.
    """
    _check_side(size, options)
    side_key, first_key, rank_key, class_key = jax.random.split(key, 4)
    longest = jnp.asarray([min(options.largest, n) for n in size], jnp.int32)
    cell = jax.random.randint(side_key, (3,), options.smallest, longest + 1)
    first = jax.random.randint(first_key, (3,), 0, jnp.asarray(size, jnp.int32) % cell + 1)
    most = [n // options.smallest for n in size]
    rank = jax.random.uniform(rank_key, most)
    classes = jax.random.randint(class_key, most, 1, options.classes)
    return tiled_classes(size, cell, first, rank, classes, options.share)


def draw_boxes(key: jax.Array, size: tuple[int, ...], options: FusionOptions) -> tuple[jax.Array, jax.Array]:
    """Draw the boxes of one crop and their classes: int32 `n 6` and `n`, n the most there may be.

    Sides are drawn from `smallest` to `widest` of the crop's side, places uniformly among those inside.
    """
    _check_side(size, options)
    count_key, side_key, place_key, class_key = jax.random.split(key, 4)
    n = options.most
    count = jax.random.randint(count_key, (), options.fewest, n + 1)
    highest = jnp.asarray([max(options.smallest, int(options.widest * s)) for s in size], jnp.int32)
    sides = jax.random.randint(side_key, (n, 3), options.smallest, highest[None] + 1)
    starts = jax.random.randint(place_key, (n, 3), 0, jnp.asarray(size, jnp.int32)[None] - sides + 1)
    sides = jnp.where(jnp.arange(n)[:, None] < count, sides, 0)
    return jnp.concatenate([starts, sides], axis=1), jax.random.randint(class_key, (n,), 0, options.classes)


def fusion(model: nn.Module, options: FusionOptions) -> Objective:
    """Volume Fusion: mix neighbouring rows of the batch, and learn each voxel's class with Dice and cross entropy.

    The loss is `losses.dice_ce`; nnssl's own is smaller by 1, with the same gradient. Batches have "image" `2b x y z c`;
    voxels of "anonymised" `2b x y z`, where it is given, are in no loss if either image has them.

    Args:
        model: with `options.classes` output channels.
        options: of the mixing.
    """

    rebuild = fusion_pass(model, options)

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        _, logits, target, model_state = rebuild(params, state, batch, key)
        if "anonymised" in batch:
            either = (batch["anonymised"] != 0).reshape(-1, PAIR, *target.shape[1:]).any(1)
            target = jnp.where(either, losses.IGNORE, target)
        counted = target != losses.IGNORE
        right = counted & (jnp.argmax(logits, axis=-1) == target)
        accuracy = jnp.sum(right) / jnp.maximum(jnp.sum(counted), 1)
        return losses.dice_ce(logits, target), (model_state, {"accuracy": accuracy})

    return objective


def fusion_pass(
    model: nn.Module, options: FusionOptions
) -> Callable[[Params, TrainState, Batch, jax.Array], tuple[jax.Array, jax.Array, jax.Array, ModelState]]:
    """What `fusion` computes before its loss: mixed images, logits, classes `b x y z`, the next model state."""

    def rebuild(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, ModelState]:
        draw_key, dropout_key = jax.random.split(key)
        image = batch["image"]
        pairs = image.reshape(-1, PAIR, *image.shape[1:])
        foreground, background, size = pairs[:, 0], pairs[:, 1], image.shape[1:4]
        keys = jax.random.split(draw_key, len(pairs))
        if options.form == "nnssl":
            boxes, classes = jax.vmap(lambda k: draw_boxes(k, size, options))(keys)
            fused, target = volume_fusion(foreground, background, boxes, classes, options.classes)
        else:
            target = jax.vmap(lambda k: draw_tiles(k, size, options))(keys)
            fused = mixed(foreground, background, target, options.classes)
        logits, model_state = forward.dense(model, params, state, fused, dropout_key)
        return fused, logits, target, model_state

    return rebuild


def shown(rebuild: Callable[..., tuple[jax.Array, jax.Array, jax.Array, ModelState]]) -> forward.Show:
    """Mixed images, the classes found in them and the true ones, out of `fusion_pass`."""

    def show(params: Params, state: TrainState, batch: Batch, key: jax.Array) -> forward.Rebuilt:
        fused, logits, target, _ = rebuild(params, state, batch, key)
        found = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return forward.Rebuilt(fused, found[..., None], target[..., None])

    return show


def _inside(box: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Which voxels a box of each sample has: `b 6` -> bool `b x y z`."""
    along = []
    for axis, n in enumerate(size):
        place, low = jnp.arange(n, dtype=box.dtype)[None], box[:, axis, None]
        along.append((place >= low) & (place < low + box[:, 3 + axis, None]))
    x, y, z = along
    return x[:, :, None, None] & y[:, None, :, None] & z[:, None, None]


def _outer(along: list[jax.Array]) -> jax.Array:
    """bool `x y z`, True where all three of `x`, `y`, `z` are."""
    x, y, z = along
    return x[:, None, None] & y[None, :, None] & z[None, None]


def _check_side(size: tuple[int, ...], options: FusionOptions) -> None:
    if min(size) < options.smallest:
        raise ConfigError(
            f"config.pretrain.smallest: {options.smallest} voxels do not fit a crop of {tuple(size)}."
        )
