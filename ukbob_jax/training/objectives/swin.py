"""Swin-UNETR's own pre-training: which way was it turned, which views belong together, what was cut out (Tang et al. 2022).

Two views of each crop are turned and cut out; three heads on the encoder's last map answer. The loss is
`contrast.swin_unetr`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.errors import ConfigError
from ukbob_jax.models.blocks import SLOPE, Conv, Norm
from ukbob_jax.training.objectives import forward
from ukbob_jax.training.objectives.contrast import TURNS, check_temperature, check_width, swin_unetr, turn
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params

FORMS = ("paper", "nnssl")
BOXES = 128  # of a pass of cut-out at most; 0.3 of the crop takes about 100
THINNEST, WIDEST = 0.05, 0.25  # sides of a box over those of the crop


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinOptions:
    """The fields of `config.pretrain` for "swinunetr".

    Attributes:
        cut: share of the crop that cut-out may take; boxes that overlap count twice towards it.
        width: of the vectors that are compared.
        temperature: of NT-Xent.
        form: "paper": turns about z; one pass of cut-out, with noise of the crop's own range; heads on the mean of the
            last map. "nnssl": turns about x; a second pass that copies from another sample, noise in [0, 1]; rotation on
            the map's first cell, contrast on its second.
    """

    cut: float = 0.3
    width: int = 512
    temperature: float = 0.5
    form: str = "paper"

    def __post_init__(self) -> None:
        if not 0 <= self.cut <= 1:
            raise ConfigError(f"config.pretrain.cut: {self.cut} is not in [0, 1].")
        if self.form not in FORMS:
            raise ConfigError(
                f"config.pretrain.form: {self.form!r} is unknown; choose one of {', '.join(FORMS)}."
            )
        check_width(self.width)
        check_temperature(self.temperature)

    @property
    def axes(self) -> tuple[int, int]:
        """The plane of the turns."""
        return (0, 1) if self.form == "paper" else (1, 2)


class SwinHeads(nn.Module):
    """The three heads on the encoder's last map `b x y z d`.

    Attributes:
        channels: of the image.
        stride: voxels of the image per cell of the map, x y z, powers of two.
        width: of the vectors that are compared.
        pooled: answer from the mean of the map; False: from its first and second cell.
    """

    channels: int
    stride: tuple[int, ...]
    width: int
    pooled: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, last: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Logits `b 4` of the turns, vectors `b width`, and the image `b x y z c`."""
        cells = last.reshape(len(last), -1, last.shape[-1])
        first, second = (cells.mean(1),) * 2 if self.pooled else (cells[:, 0], cells[:, 1])
        turns = nn.Dense(TURNS, name="rotation")(first)
        vectors = nn.Dense(self.width, name="contrast")(second)
        x, left, step = last, self.stride, 0
        while max(left) > 1:
            features = max(last.shape[-1] >> min(step + 1, 4), 1)
            x = Conv(features, size=3, bias=True, dtype=self.dtype, name=f"conv_{step}")(x)
            x = Norm("instance", dtype=self.dtype)(x, slope=SLOPE)
            size = [n * (2 if s > 1 else 1) for n, s in zip(x.shape[1:4], left)]
            x = jax.image.resize(x, (len(x), *size, features), "linear")
            left, step = tuple(max(s // 2, 1) for s in left), step + 1
        image = Conv(self.channels, size=1, bias=True, dtype=self.dtype, name="image")(x)
        return turns, vectors, image.astype(jnp.float32)


def cut_boxes(key: jax.Array, size: tuple[int, ...], share: float) -> jax.Array:
    """Which voxels one pass of cut-out takes from a crop: bool `x y z`.

    Boxes with sides of 5 to 25 % come until their volumes add up to a share drawn from [0, `share`].
    """
    budget_key, side_key, place_key = jax.random.split(key, 3)
    low = jnp.asarray([max(int(THINNEST * n), 1) for n in size], jnp.int32)
    high = jnp.asarray([max(int(WIDEST * n), 1) for n in size], jnp.int32)
    sides = jax.random.randint(side_key, (BOXES, 3), low[None], high[None] + 1)
    sizes = jnp.asarray(size, jnp.int32)
    starts = jax.random.randint(place_key, (BOXES, 3), 0, (sizes - low + 1)[None])
    ends = jnp.minimum(starts + sides, sizes[None])
    volumes = jnp.prod((ends - starts).astype(jnp.float32), axis=1)
    before = jnp.cumsum(volumes) - volumes
    there = before < share * math.prod(size) * jax.random.uniform(budget_key)
    along = []
    for axis, n in enumerate(size):
        place = jnp.arange(n, dtype=jnp.int32)[None]
        inside = (place >= starts[:, axis, None]) & (place < ends[:, axis, None]) & there[:, None]
        along.append(inside.astype(jnp.float32))
    return jnp.einsum("nx,ny,nz->xyz", *along) > 0  # a product of matrices marks all boxes at once


def cut_out(key: jax.Array, image: jax.Array, options: SwinOptions) -> jax.Array:
    """`image` `b x y z c` after cut-out."""
    size = image.shape[1:4]
    box_key, noise_key, other_key, again_key = jax.random.split(key, 4)
    boxes = lambda k: jax.vmap(lambda one: cut_boxes(one, size, options.cut))(jax.random.split(k, len(image)))  # noqa: E731
    voxels = (1, 2, 3)
    noise = jax.random.normal(noise_key, image.shape, jnp.float32)
    lowest = noise.min(voxels, keepdims=True)
    noise = (noise - lowest) / (noise.max(voxels, keepdims=True) - lowest)
    if options.form == "paper":
        low = image.min(voxels, keepdims=True)
        noise = low + noise * (image.max(voxels, keepdims=True) - low)
    seen = jnp.where(boxes(box_key)[..., None], noise, image)
    if options.form == "nnssl" and len(image) > 1:
        step = jax.random.randint(other_key, (), 1, len(image))
        seen = jnp.where(boxes(again_key)[..., None], jnp.roll(seen, step, axis=0), seen)
    return seen


def swin(model: nn.Module, heads: SwinHeads, options: SwinOptions) -> Objective:
    """Swin-UNETR's pre-training. Batches have "image" `b x y z c`, and may have "anonymised" `b x y z`.

    Args:
        model: whose encoder learns.
        heads: on its last map.
        options: of the views and the loss.
    """

    answer = swin_pass(model, heads, options)

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        shown, logits, vectors, turns, anonymised, model_state = answer(params, state, batch, key)
        loss = swin_unetr(
            logits,
            turns,
            vectors,
            shown.rebuilt,
            shown.truth,
            temperature=options.temperature,
            anonymised=anonymised,
        )
        right = jnp.mean(jnp.argmax(logits, axis=-1) == turns)
        parts = {name: getattr(loss, name) for name in ("rotation", "contrast", "reconstruction")}
        return loss.total, (model_state, {**parts, "accuracy": right})

    return objective


class Answers(NamedTuple):
    """What the heads say of two views, which way these were turned, and what was anonymised."""

    shown: forward.Rebuilt
    logits: jax.Array
    vectors: jax.Array
    turns: jax.Array
    anonymised: jax.Array | None
    model_state: ModelState


def swin_pass(
    model: nn.Module, heads: SwinHeads, options: SwinOptions
) -> Callable[[Params, TrainState, Batch, jax.Array], Answers]:
    """What `swin` computes before its loss."""

    def answer(params: Params, state: TrainState, batch: Batch, key: jax.Array) -> Answers:
        turn_key, cut_key, dropout_key = jax.random.split(key, 3)
        image = jnp.concatenate([batch["image"]] * 2)
        turns = jax.random.randint(turn_key, (len(image),), 0, TURNS)
        target = turn(image, turns, options.axes)
        anonymised = None
        if "anonymised" in batch:
            mask = jnp.concatenate([batch["anonymised"]] * 2)
            anonymised = turn(mask[..., None], turns, options.axes)[..., 0]
        first, second = jax.random.split(cut_key)
        seen = jnp.concatenate(
            [cut_out(k, half, options) for k, half in zip((first, second), jnp.split(target, 2))]
        )
        maps, model_state = forward.encode(model, params, state, seen, dropout_key)
        logits, vectors, rebuilt = forward.own(heads, params, maps[-1])
        shown = forward.Rebuilt(seen, rebuilt, target)
        return Answers(shown, logits, vectors, turns, anonymised, model_state)

    return answer
