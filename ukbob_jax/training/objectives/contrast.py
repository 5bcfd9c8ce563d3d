"""Learning which crops belong together: NT-Xent (SimCLR), and Swin-UNETR's rotation, contrast and reconstruction."""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import forward
from ukbob_jax.training.objectives.masked import masked_l1
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params

VIEWS = 2  # crops of a sample, as neighbouring rows of a batch
TURNS = 4  # classes of rotation: quarter turns


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimClrOptions:
    """The fields of `config.pretrain` for "simclr".

    Attributes:
        temperature: tau; of the benchmark (nnssl).
        width: of the projection's two hidden layers and of its output.
    """

    temperature: float = 0.5
    width: int = 2048

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_width(self.width)


def check_temperature(value: float) -> None:
    """Refuse a temperature that cannot divide.

    Raises:
        ConfigError: it is not above 0.
    """
    if not 0 < value < math.inf:
        raise ConfigError(f"config.pretrain.temperature: {value} is not above 0.")


def check_width(value: int) -> None:
    """Refuse a layer without features.

    Raises:
        ConfigError: it has less than 1.
    """
    if value < 1:
        raise ConfigError(f"config.pretrain.width: {value} is less than 1.")


def unit(x: jax.Array) -> jax.Array:
    """`... d` as vectors of length 1; a zero vector stays, with a finite gradient."""
    x = jnp.asarray(x, jnp.float32)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 1)


def nt_xent(first: jax.Array, second: jax.Array, temperature: float = 0.5) -> jax.Array:
    """Normalised temperature-scaled cross entropy (Chen et al. 2020): which of the 2 b - 1 others is my partner?

    The mean over all 2 b rows i with partner p of logsumexp over k != i of cos(i, k) / tau, minus cos(i, p) / tau. Under
    `jax.jit` rows may lie on several devices and processes: the batch that is compared is the whole one.

    Args:
        first: `b d`.
        second: `b d`, the partners.
        temperature: tau.
    Returns:
        Scalar, float32; 0 for one pair, which has nothing to tell apart.
    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"first {first.shape} and second {second.shape} are not two of one shape (b d).")
    rows = unit(jnp.concatenate([first, second]))
    scores = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST) / temperature
    n = len(rows)
    own = jnp.arange(n)
    scores = jnp.where(own[:, None] == own[None], -jnp.inf, scores)
    right = scores[own, jnp.roll(own, n // 2)]
    return jnp.mean(jax.nn.logsumexp(scores, axis=1) - right)


class Projection(nn.Module):
    """Three linear layers with norm and ReLU between them: pooled features `b d` to `b width`.

    The norm has no parameters and works on each row: so does the instance norm of nnssl's head, which sees two axes.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`b d` to `b width`."""
        for _ in range(2):
            x = nn.LayerNorm(1e-5, use_bias=False, use_scale=False)(nn.Dense(self.width)(x))
            x = nn.relu(x)
        return nn.Dense(self.width)(x)


def simclr(model: nn.Module, head: Projection, options: SimClrOptions) -> Objective:
    """SimCLR: the pooled maps of the encoder tell the two crops of a sample from those of all others.

    Batches have "image" `2b x y z c`: neighbouring rows are two crops of one sample, each augmented by itself.

    Args:
        model: whose encoder learns.
        head: from pooled maps to what is compared.
        options: of the loss.
    """

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        maps, model_state = forward.encode(model, params, state, batch["image"], key)
        rows = forward.own(head, params, forward.pooled(maps))
        pairs = rows.reshape(-1, VIEWS, rows.shape[-1])
        loss = nt_xent(pairs[:, 0], pairs[:, 1], options.temperature)
        return loss, (model_state, {"spread": jnp.mean(jnp.std(unit(rows), axis=0))})

    return objective


class SwinLoss(NamedTuple):
    """Scalars: the weighted sum, and its parts."""

    total: jax.Array
    rotation: jax.Array
    contrast: jax.Array
    reconstruction: jax.Array


def swin_unetr(
    rotation_logits: jax.Array,
    rotations: jax.Array,
    contrast: jax.Array,
    reconstruction: jax.Array,
    image: jax.Array,
    weights: tuple[float, float, float] = (1, 1, 1),
    temperature: float = 0.5,
    anonymised: jax.Array | None = None,
) -> SwinLoss:
    """Swin-UNETR's pre-training loss (Tang et al. 2022): a L1 + b NT-Xent + c cross entropy of the rotation.

    Args:
        rotation_logits: `2b 4`; first the first views of all samples, then the second ones.
        rotations: integers `2b`, quarter turns.
        contrast: `2b d`.
        reconstruction: `2b x y z c`.
        image: `2b x y z c`, turned and not cut out.
        weights: of reconstruction, contrast and rotation, in this order.
        temperature: of NT-Xent.
        anonymised: `2b x y z`, turned with the image: voxels that no reconstruction counts. None: all count.
    """
    turned = jnp.asarray(rotation_logits, jnp.float32)
    chosen = jnp.take_along_axis(
        jax.nn.log_softmax(turned, axis=-1), rotations[:, None].astype(jnp.int32), axis=-1
    )
    rotation = -jnp.mean(chosen)
    first, second = jnp.split(contrast, 2)
    agreement = nt_xent(first, second, temperature)
    error = masked_l1(reconstruction, image, jnp.ones(image.shape[:4], bool), anonymised)
    total = weights[0] * error + weights[1] * agreement + weights[2] * rotation
    return SwinLoss(total, rotation, agreement, error)


def turn(image: jax.Array, turns: jax.Array, axes: tuple[int, int] = (0, 1)) -> jax.Array:
    """Turn each sample `b x y z c` by `turns` `b` quarter turns in the plane of two of its axes x y z.

    Raises:
        ConfigError: the crop is not square in that plane.
    """
    if image.shape[1 + axes[0]] != image.shape[1 + axes[1]]:
        raise ConfigError(
            f"config.data.crop: {tuple(image.shape[1:4])} is not square in its axes {axes}, so it cannot be turned there."
        )
    ways = [lambda x, k=k: jnp.rot90(x, k, axes) for k in range(TURNS)]
    return jax.vmap(lambda x, k: jax.lax.switch(k, ways, x))(image, turns)
