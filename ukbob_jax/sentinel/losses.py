"""What graders are trained with: weighted squared error, ranking of paired samples, and the AUC margin of a detector.

Axes: b samples, e numbers of an embedding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.core import Tracer

from ukbob_jax.errors import MismatchError, ValuesError

Array = jax.Array | np.ndarray
WEIGHTS = (
    (0.3, 7.0),
    (0.5, 5.0),
    (0.7, 3.0),
    (0.9, 2.0),
)  # true Dice up to this bound -> weight; above the last: 1
MARGIN = 1e-4  # of a pair's order


def weighted_mse(predicted: Array, true: Array) -> jax.Array:
    """mean(w (p - t)^2), where bad masks weigh more (Quality Sentinel, loss): `WEIGHTS` by true Dice.

    Args:
        predicted: b.
        true: b, Dice. A bound belongs to the interval below it, in the precision of `true`.
    Raises:
        MismatchError: the shapes differ.
    """
    predicted, true = _pair_of(predicted, true)
    weight = jnp.ones_like(true)
    for bound, value in reversed(WEIGHTS):
        weight = jnp.where(true <= bound, value, weight)
    return jnp.mean(weight * jnp.square(predicted - true))


def ranking_loss(
    predicted: Array, true: Array, embeddings: Array | None = None, pairs: Array | None = None
) -> jax.Array:
    """mean over pairs (i, j) of ReLU(-(p_i - p_j)(t_i - t_j) + 1e-4): like organs must come in the right order.

    Args:
        predicted: b.
        true: b, Dice.
        embeddings: b e, from which `pair` finds the pairs; not needed where these are given.
        pairs: b, the partner of each sample. Inside jit they must be given: found before by `pair` on the host, or inside
            by `neighbours`.
    Raises:
        MismatchError: shapes differ, or neither embeddings nor pairs, or traced embeddings without pairs.
        ValuesError: fewer than two samples.
    """
    predicted, true = _pair_of(predicted, true)
    if pairs is None:
        if embeddings is None or isinstance(embeddings, Tracer):
            raise MismatchError(
                "ranking_loss: needs pairs=, or embeddings outside jit. Find them with pair(embeddings) on the host, or "
                "neighbours(classes) inside jit."
            )
        pairs = pair(embeddings)
    if len(pairs) != len(predicted):
        raise MismatchError(
            f"ranking_loss: {len(pairs)} pairs for {len(predicted)} samples; give one partner each."
        )
    partner = jnp.asarray(pairs)
    order = (predicted - predicted[partner]) * (true - true[partner])
    return jnp.mean(jax.nn.relu(MARGIN - order))


def pair(embeddings: Array) -> np.ndarray:
    """A partner for each sample, (b,) int32: the permutation without fixed points of greatest total cosine similarity.

    A linear assignment on the host, in float64. Cycles of any length occur; where embeddings are equal the best
    permutation is not unique.

    Args:
        embeddings: b e.
    Raises:
        ValuesError: fewer than two samples, or an embedding that is not finite.
    """
    vectors = np.asarray(embeddings, np.float64)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValuesError(
            f"pair: embeddings are {vectors.shape}; a partner needs two samples at least, (b, e)."
        )
    if not np.isfinite(vectors).all():
        raise ValuesError("pair: an embedding is NaN or infinite; leave out classes without an embedding.")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -4.0 * len(vectors))  # worse than all others together
    return scipy.optimize.linear_sum_assignment(similarity, maximize=True)[1].astype(np.int32)


def neighbours(classes: Array) -> jax.Array:
    """A partner for each sample, (b,) int32, inside jit: sorted by class, the next one; the last gets the first.

    A single cycle, in which all but one sample of each class meet one of their own.

    Args:
        classes: b, integers.
    Raises:
        ValuesError: fewer than two samples.
    """
    classes = jnp.asarray(classes)
    if classes.ndim != 1 or len(classes) < 2:
        raise ValuesError(
            f"neighbours: classes are {classes.shape}; a partner needs two samples at least, (b,)."
        )
    order = jnp.argsort(classes)
    return jnp.zeros(len(classes), jnp.int32).at[order].set(jnp.roll(order, -1).astype(jnp.int32))


def auc_margin(
    scores: Array, positive: Array, a: Array, b: Array, alpha: Array, margin: float = 1.0
) -> jax.Array:
    """AUC margin loss: mean+ (h - a)^2 + mean- (h - b)^2 + 2 alpha (m + mean- h - mean+ h) - alpha^2.

    To be lowered over the network, `a` and `b` and raised over `alpha` >= 0 (Yuan et al. 2021). At its saddle point it is
    the mean over all pairs of (m - (h+ - h-))^2 where alpha is not held at 0. Use for rare positives, such as labels that
    need repair; `uphill` turns the gradient of `alpha`, `project` keeps it above 0.

    Args:
        scores: h, b.
        positive: b, bool.
        a, b, alpha: scalars, parameters.
        margin: m.
    Returns:
        A scalar; the mean of a side that the batch lacks counts as 0.
    Raises:
        MismatchError: the shapes differ.
    """
    scores, positive = _pair_of(scores, positive)
    one = positive.astype(scores.dtype)

    def mean(values: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1)

    spread = mean(jnp.square(scores - a), one) + mean(jnp.square(scores - b), 1 - one)
    gap = margin + mean(scores, 1 - one) - mean(scores, one)
    both = (one.max() > 0) & (one.min() < 1)  # else there is no pair to tell apart
    return spread + jnp.where(both, 2 * alpha * gap - jnp.square(alpha), 0)


def auc_parameters() -> dict[str, jax.Array]:
    """Fresh `a`, `b` and `alpha` of `auc_margin`: zeros."""
    return {name: jnp.zeros((), jnp.float32) for name in ("a", "b", "alpha")}


def uphill(gradients: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Gradients of `auc_parameters` for an optimiser that goes downhill: that of `alpha` is turned."""
    return {**gradients, "alpha": -gradients["alpha"]}


def project(parameters: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """`auc_parameters` after a step: `alpha` is 0 at least."""
    return {**parameters, "alpha": jnp.maximum(parameters["alpha"], 0)}


def _pair_of(predicted: Array, true: Array) -> tuple[jax.Array, jax.Array]:
    predicted, true = jnp.asarray(predicted), jnp.asarray(true)
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise MismatchError(f"predictions are {predicted.shape}, truths {true.shape}: both must be (b,).")
    return predicted, true
