"""Learning from made volumes, after RaSD: features of one region agree in two appearances, those of others differ.

RaSD's own constants are not public; these are ours. The regions' labels mean nothing beyond their volume, so a voxel is
compared with the prototypes of its own volume: a segmentation up to permutation.
"""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.errors import ConfigError
from ukbob_jax.training.objectives import forward, synthesis
from ukbob_jax.training.objectives.contrast import unit
from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class RasdOptions(synthesis.RegionOptions):
    """The fields of `config.pretrain` for "rasd": those of `RegionOptions`, and of the loss.

    Attributes:
        width: features of a voxel, the network's output channels.
        voxels: drawn of each volume, for prototypes and loss.
        temperature: of the contrast.
        agreement: weight of the agreement of two appearances.
    """

    width: int = 16
    voxels: int = 4096
    temperature: float = 0.1
    agreement: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "voxels"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"config.pretrain.{name}: {value} is less than 1.")
        if self.temperature <= 0:
            raise ConfigError(f"config.pretrain.temperature: {self.temperature} is not above 0.")
        if self.agreement < 0:
            raise ConfigError(f"config.pretrain.agreement: {self.agreement} is negative.")


class RasdLoss(NamedTuple):
    """Scalars, float32: contrast and disagreement; `accuracy`: share of voxels whose nearest prototype is their own."""

    contrast: jax.Array
    disagreement: jax.Array
    accuracy: jax.Array


def prototype_loss(features: jax.Array, label: jax.Array, labels: int, temperature: float = 0.1) -> RasdLoss:
    """Compare voxels with the prototypes of their volume's regions.

    With f_rv the feature of voxel v in appearance r, of length 1, p_k the mean of all f_rv with label k, made of length 1:
    contrast = mean over r, v of logsumexp_k (f_rv . p_k / tau) - f_rv . p_label(v) / tau, over the labels that occur, and
    disagreement = mean over v of 1 - f_0v . f_1v.

    Args:
        features: `2 n d`, of the same n voxels in two appearances.
        label: integers `n` in 0..labels-1.
        labels: how many there may be.
        temperature: tau.
    """
    features = unit(features)
    member = label[:, None] == jnp.arange(labels, dtype=label.dtype)[None]  # n k
    high = jax.lax.Precision.HIGHEST
    prototypes = unit(jnp.einsum("rnd,nk->kd", features, member.astype(jnp.float32), precision=high))
    scores = jnp.einsum("rnd,kd->rnk", features, prototypes, precision=high) / temperature
    scores = jnp.where(member.any(0)[None, None], scores, -jnp.inf)
    own = jnp.where(member[None], scores, 0).sum(-1)
    contrast = jnp.mean(jax.nn.logsumexp(scores, axis=-1) - own)
    disagreement = jnp.mean(1 - (features[0] * features[1]).sum(-1))
    return RasdLoss(contrast, disagreement, jnp.mean(jnp.argmax(scores, axis=-1) == label[None]))


def rasd(model: nn.Module, options: RasdOptions) -> Objective:
    """RaSD-style learning: batches have "image" `2b x y z c` and "label" `2b x y z`, as `synthesis.pairs` makes them.

    Args:
        model: with `options.width` output channels.
        options: of the loss.
    """

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        voxel_key, dropout_key = jax.random.split(key)
        features, model_state = forward.dense(model, params, state, batch["image"], dropout_key)
        of_pairs = features.reshape(
            -1, synthesis.VIEWS, math.prod(features.shape[1:-1]), options.width
        )  # b 2 v d
        label = batch["label"].reshape(*of_pairs.shape[:3])[:, 0]  # b v
        drawn = jax.random.randint(voxel_key, (len(label), options.voxels), 0, label.shape[1])  # b n

        def one(features: jax.Array, label: jax.Array, drawn: jax.Array) -> RasdLoss:
            chosen = jnp.take(label, drawn).astype(jnp.int32)
            return prototype_loss(
                jnp.take(features, drawn, axis=1), chosen, synthesis.count(options), options.temperature
            )

        found = jax.tree.map(jnp.mean, jax.vmap(one)(of_pairs, label, drawn))
        parts = {"contrast": found.contrast, "disagreement": found.disagreement, "accuracy": found.accuracy}
        return found.contrast + options.agreement * found.disagreement, (model_state, parts)

    return objective
