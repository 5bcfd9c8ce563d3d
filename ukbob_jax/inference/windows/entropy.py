"""How undecided a prediction is, voxel by voxel, and which classes it holds; from logits, in float32.

`softmax`: one class a voxel, channel 0 background. `sigmoid`: regions that may overlap, no background channel.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.errors import ConfigError

UNROLLED = 128  # classes; of more the program would take long to compile
LOWEST = -1e3  # a log-probability whose exponential is 0 in float32, for those of minus infinity


def mask_classes(logits: jax.Array, exclude: Sequence[int]) -> jax.Array:
    """Logits with minus infinity for the classes in `exclude`: they get no probability.

    Raises:
        ConfigError: no class is left.
    """
    if not exclude:
        return logits
    mask = np.isin(np.arange(logits.shape[-1]), exclude)
    if mask.all():
        raise ConfigError(f"exclude: {logits.shape[-1]} of {logits.shape[-1]} classes; leave at least one.")
    return jnp.where(jnp.broadcast_to(mask, logits.shape), -jnp.inf, logits)


def voxel_entropy(logits: jax.Array, activation: str = "softmax", exclude: Sequence[int] = ()) -> jax.Array:
    """Entropy of each voxel's prediction, nats.

    softmax: -sum_c p_c log p_c, with log p from log-softmax, so that no probability underflows into log 0.
    sigmoid: the sum over channels of -p log p - (1 - p) log(1 - p).

    Args:
        logits: `... k`, float32.
        activation: "softmax" or "sigmoid".
        exclude: classes that get no probability.

    Returns:
        `...`, float32, never below 0.
    """
    logits = mask_classes(logits, exclude)
    if activation == "softmax":
        return -jnp.sum(_p_log_p(jax.nn.log_softmax(logits, axis=-1)), axis=-1)
    return -jnp.sum(_p_log_p(jax.nn.log_sigmoid(logits)) + _p_log_p(jax.nn.log_sigmoid(-logits)), axis=-1)


def _p_log_p(log_p: jax.Array) -> jax.Array:
    """p log p, and 0 with gradient 0 where p is 0, also for a logit of minus infinity."""
    log_p = jnp.maximum(log_p, LOWEST)
    return jnp.exp(log_p) * log_p


def background(logits: jax.Array, activation: str = "softmax", exclude: Sequence[int] = ()) -> jax.Array:
    """Probability that a voxel belongs to nothing: `... k` -> `...`. softmax: class 0; sigmoid: no channel."""
    logits = mask_classes(logits, exclude)
    if activation == "softmax":
        return jax.nn.softmax(logits, axis=-1)[..., 0]
    return jnp.exp(jnp.sum(jax.nn.log_sigmoid(-logits), axis=-1))


@jax.jit
def winner(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The class with the largest logit, of equals the first, and that logit: `... k` -> two of `...`.

    Classes are uint8, or int32 where there are more than fit. For a CPU, on which XLA vectorises no argmax, class after
    class is compared for many voxels at a time; as many comparisons as classes are compiled.
    """
    if logits.shape[-1] > UNROLLED:
        return _at_once(logits)
    return lax.platform_dependent(logits, cpu=_one_by_one, default=_at_once)


def _at_once(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.argmax(logits, axis=-1).astype(_kind(logits)), jnp.max(logits, axis=-1)


def _one_by_one(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    largest = lax.index_in_dim(logits, 0, -1, keepdims=False)
    label = jnp.zeros(largest.shape, _kind(logits))
    for c in range(1, logits.shape[-1]):
        logit = lax.index_in_dim(logits, c, -1, keepdims=False)
        label = lax.select(logit > largest, lax.full_like(label, c), label)
        largest = lax.max(largest, logit)
    return label, largest


def _kind(logits: jax.Array) -> type:
    """The type of its labels."""
    return jnp.uint8 if logits.shape[-1] <= 256 else jnp.int32


def class_counts(
    logits: jax.Array, weight: jax.Array, activation: str = "softmax", exclude: Sequence[int] = ()
) -> jax.Array:
    """Weighted number of voxels predicted as each class: `b x y z k`, `b x y z` -> `k`, float32."""
    logits = mask_classes(logits, exclude)
    if activation == "softmax":
        label = winner(lax.stop_gradient(logits))[0][..., None]
        chosen = label == jnp.arange(logits.shape[-1], dtype=label.dtype)[(None,) * (logits.ndim - 1)]
    else:
        chosen = logits > 0
    return jnp.sum(jnp.where(chosen, weight[..., None], 0.0), axis=tuple(range(logits.ndim - 1)))
