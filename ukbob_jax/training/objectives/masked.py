"""Learning to fill in hidden blocks of voxels: masked autoencoders (MAE) and SimMIM.

With h = 1 where a voxel is hidden and a = 1 where it was anonymised, w = h (1 - a), and the loss is
sum(w d(prediction, target)) / sum(w), d the squared error (He et al. 2022) or the absolute one (Xie et al. 2022).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import forward
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params

FORMS = ("paper", "nnssl")
# (params, state, batch, key) -> what was seen and rebuilt, which voxels were hidden, the next model state
Pass = Callable[[Params, TrainState, Batch, jax.Array], tuple[forward.Rebuilt, jax.Array, ModelState]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedOptions:
    """The fields of `config.pretrain` for "mae" and "simmim".

    Attributes:
        block: side of the blocks that are hidden or shown as a whole, voxels; that of the benchmark (nnssl).
        ratio: of the blocks that are hidden, in every sample; also of the papers.
        form: "paper": d is each paper's error (MAE squared, SimMIM absolute). "nnssl": squared in both.
    """

    block: int = 16
    ratio: float = 0.75
    form: str = "paper"

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ConfigError(f"config.pretrain.block: {self.block} is less than 1 voxel.")
        if not 0 < self.ratio < 1:
            raise ConfigError(f"config.pretrain.ratio: {self.ratio} is not between 0 and 1.")
        if self.form not in FORMS:
            raise ConfigError(
                f"config.pretrain.form: {self.form!r} is unknown; choose one of {', '.join(FORMS)}."
            )


def grid_of(size: Sequence[int], sides: Sequence[int], ratio: float) -> list[int]:
    """Return how many whole blocks a crop has along each axis.

    Args:
        size: of the crop, voxels x y z.
        sides: of a block, voxels x y z.
        ratio: of the blocks that is hidden.
    Raises:
        ConfigError: a side of the crop is shorter than a block, or no block is hidden, so that nothing is learnt.
    """
    grid = [length // side for length, side in zip(size, sides)]
    if min(grid) < 1:
        raise ConfigError(
            f"config.pretrain.block: blocks of {tuple(sides)} voxels do not fit a crop of {tuple(size)}."
        )
    if int(ratio * math.prod(grid)) < 1:
        raise ConfigError(
            f"config.pretrain.ratio: {ratio} hides none of the {math.prod(grid)} whole blocks of {tuple(sides)} voxels in a "
            f"crop of {tuple(size)}. Take a larger config.data.crop, a smaller config.pretrain.block or a larger ratio."
        )
    return grid


def block_mask(key: jax.Array, shape: Sequence[int], block: int | Sequence[int], ratio: float) -> jax.Array:
    """Draw which blocks of voxels are hidden: int(ratio n) of the n whole blocks of each sample, exactly.

    Args:
        key: of the draw.
        shape: `b x y z`.
        block: side in voxels, or one for each of x y z. What is left of a side beyond its last whole block is shown.
        ratio: of the blocks.
    Returns:
        bool `b x y z`, True where hidden.
    Raises:
        ConfigError: as `grid_of`.
    """
    b, *size = shape
    sides = (block,) * len(size) if isinstance(block, int) else tuple(block)
    grid = grid_of(size, sides, ratio)
    n = math.prod(grid)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(key, (b, n)), axis=1), axis=1)
    hidden = (rank < int(ratio * n)).reshape(b, *grid)
    for axis, (length, side) in enumerate(zip(size, sides), 1):
        hidden = jnp.repeat(hidden, side, axis=axis)
        rest = [(0, 0)] * hidden.ndim
        rest[axis] = (0, length - hidden.shape[axis])
        hidden = jnp.pad(hidden, rest)
    return hidden


def masked_mse(
    prediction: jax.Array,
    target: jax.Array,
    hidden: jax.Array,
    anonymised: jax.Array | None = None,
    *,
    form: str = "paper",
) -> jax.Array:
    """Mean squared error over the hidden voxels that were not anonymised.

    Args:
        prediction: `b x y z c`.
        target: `b x y z c`.
        hidden: `b x y z` or `b x y z c` (or 1), 0 or 1.
        anonymised: the same form; None: nothing was.
        form: "paper": what is not 0 in the masks counts as 1; 0 where no voxel is left. "nnssl": the masks' numbers
            are used as they are stored, so that a -1 or 255 outside a crop weighs 2 or -254, and NaN where no weight
            is left: for comparing with that code only.
    Returns:
        Scalar, float32.
    Raises:
        ValueError: the shapes do not belong together.
    """
    return _weighted(jnp.square(_difference(prediction, target)), hidden, anonymised, form)


def masked_l1(
    prediction: jax.Array,
    target: jax.Array,
    hidden: jax.Array,
    anonymised: jax.Array | None = None,
    *,
    form: str = "paper",
) -> jax.Array:
    """Mean absolute error over the hidden voxels that were not anonymised; as `masked_mse` otherwise."""
    return _weighted(absolute(_difference(prediction, target)), hidden, anonymised, form)


def absolute(x: jax.Array) -> jax.Array:
    """|x| with gradient 0 at 0, as PyTorch's; `jnp.abs` has 1 there."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


def _difference(prediction: jax.Array, target: jax.Array) -> jax.Array:
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {prediction.shape} and target {target.shape} differ in shape.")
    return jnp.asarray(prediction, jnp.float32) - jnp.asarray(target, jnp.float32)


def _weighted(error: jax.Array, hidden: jax.Array, anonymised: jax.Array | None, form: str) -> jax.Array:
    """Mean of `error` `b x y z c` with the weight of its voxels."""
    weight = _like(hidden, error, form)
    if anonymised is not None:
        weight = weight * (1 - _like(anonymised, error, form))
    total = jnp.sum(weight)
    if form == "nnssl":
        return jnp.sum(weight * error) / total
    return jnp.sum(weight * error) / jnp.where(total > 0, total, 1)


def _like(mask: jax.Array, error: jax.Array, form: str) -> jax.Array:
    """`mask` as float32 weights of the shape of `error`."""
    mask = jnp.asarray(mask)
    mask = mask[..., None] if mask.ndim == error.ndim - 1 else mask
    if (
        mask.ndim != error.ndim
        or mask.shape[:-1] != error.shape[:-1]
        or mask.shape[-1] not in (1, error.shape[-1])
    ):
        raise ValueError(f"mask {mask.shape} does not fit errors of {error.shape} (b x y z c).")
    mask = mask.astype(jnp.float32) if form == "nnssl" else (mask != 0).astype(jnp.float32)
    return jnp.broadcast_to(mask, error.shape)


def mae(model: nn.Module, options: MaskedOptions) -> Objective:
    """Masked autoencoder: hidden blocks of the input are 0, and the whole network gives them back (He et al. 2022).

    Batches have "image" `b x y z c` and may have "anonymised" `b x y z`, whose voxels are in no loss.

    Args:
        model: with as many output as input channels.
        options: of the masks.
    """
    return reconstruction(mae_pass(model, options), masked_mse)


def mae_pass(model: nn.Module, options: MaskedOptions) -> Pass:
    """What `mae` computes before its loss."""

    def rebuild(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[forward.Rebuilt, jax.Array, ModelState]:
        mask_key, dropout_key = jax.random.split(key)
        image = batch["image"]
        hidden = block_mask(mask_key, image.shape[:4], options.block, options.ratio)
        seen = jnp.where(hidden[..., None], jnp.zeros((), image.dtype), image)
        prediction, model_state = forward.dense(model, params, state, seen, dropout_key)
        return forward.Rebuilt(seen, prediction, image), hidden, model_state

    return rebuild


def reconstruction(rebuild: Pass, loss: Callable[..., jax.Array]) -> Objective:
    """Learn what a pass hides: `loss` of (rebuilt, truth, hidden, the batch's "anonymised" or None)."""

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        shown, hidden, model_state = rebuild(params, state, batch, key)
        return loss(shown.rebuilt, shown.truth, hidden, batch.get("anonymised")), (model_state, {})

    return objective


class SimMimParts(nn.Module):
    """What SimMIM has beside the encoder: the token that stands for hidden blocks, and a linear head to voxels.

    Attributes:
        block: voxels of a token along x y z.
        channels: of the image.
        stride: voxels of the image per voxel of the encoder's last map, x y z.
    """

    block: tuple[int, ...]
    channels: int
    stride: tuple[int, ...]

    def setup(self) -> None:  # noqa: D102 - Flax calls it
        self.token = self.param(
            "token", nn.initializers.normal(0.02), (*self.block, self.channels), jnp.float32
        )
        self.head = nn.Dense(math.prod(self.stride) * self.channels)

    def __call__(self, image: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both parts once, so that `init` makes them."""
        return self.hide(image, jnp.ones(image.shape[:-1], bool)), self.voxels(last)

    def hide(self, image: jax.Array, hidden: jax.Array) -> jax.Array:
        """`image` `b x y z c` with the token in every hidden block (`hidden` `b x y z`)."""
        token = self.token
        for axis, (length, side) in enumerate(zip(image.shape[1:4], self.block)):
            repeats = [1] * token.ndim
            repeats[axis] = -(-length // side)
            token = jnp.tile(token, repeats)
        token = token[: image.shape[1], : image.shape[2], : image.shape[3]]
        return jnp.where(hidden[..., None], token[None].astype(image.dtype), image)

    def voxels(self, last: jax.Array) -> jax.Array:
        """The encoder's last map `b x y z d` to voxels `b x*sx y*sy z*sz c`: a linear layer, then unfolded."""
        b, x, y, z, _ = last.shape
        sx, sy, sz = self.stride
        cells = self.head(last).reshape(b, x, y, z, sx, sy, sz, self.channels)
        return cells.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, x * sx, y * sy, z * sz, self.channels)


def simmim(model: nn.Module, parts: SimMimParts, options: MaskedOptions) -> Objective:
    """SimMIM: hidden blocks are a learnt token, and a linear head on the encoder's last map gives them back.

    Xie et al. 2022. A token of voxels that a linear patch embedding sees is a token of the embedding: blocks are whole
    patches. Batches as for `mae`.

    Args:
        model: whose encoder learns; its decoder takes no part.
        parts: token and head.
        options: of the masks.
    """
    loss = masked_l1 if options.form == "paper" else masked_mse
    return reconstruction(simmim_pass(model, parts, options), loss)


def simmim_pass(model: nn.Module, parts: SimMimParts, options: MaskedOptions) -> Pass:
    """What `simmim` computes before its loss."""

    def rebuild(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[forward.Rebuilt, jax.Array, ModelState]:
        mask_key, dropout_key = jax.random.split(key)
        image = batch["image"]
        hidden = block_mask(mask_key, image.shape[:4], options.block, options.ratio)
        seen = forward.own(parts, params, image, hidden, method="hide")
        maps, model_state = forward.encode(model, params, state, seen, dropout_key)
        prediction = forward.own(parts, params, maps[-1], method="voxels")
        size = image.shape[1:4]
        prediction = prediction[:, : size[0], : size[1], : size[2]]
        return forward.Rebuilt(seen, prediction, image), hidden, model_state

    return rebuild
