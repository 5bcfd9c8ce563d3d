"""FairSeg's error-bound scaling: groups of people that a network does worse on weigh more in the Dice loss.

Fair error-bound scaling (Tian et al. 2024, FairSeg, section 4): in each batch a group g has the Dice loss L_g, and the
predicted probabilities of its samples are multiplied by w_g = tanh((min L / L_g)**gamma) before the loss is computed. The
best group keeps tanh(1) = 0.76 of its probabilities, others less, so that their loss is larger. No gradient goes through
the weights.

The released code has two defects, kept in the form "released" for comparison:

- A group without a sample in the batch keeps the loss 0 it started with. That is then the minimum, all other weights are
  tanh(0) = 0, and the Dice loss has no gradient at all. Here the minimum is over the groups that are in the batch.
- An empty truth is no error to its metric, which scores 1, while in L_g a class that a group's crops do not show has loss
  1, however little of it is predicted: groups are then compared by what their crops happen to show. Here L_g is over the
  classes that are in the group's truth; invented structures still cost in the loss itself, and score 0 in our metrics.
"""

import jax
import jax.numpy as jnp

FORMS = ("present", "released")
LEAST = 1e-6  # of a group's loss: float32 sums may round a perfect one to below 0


def group_losses(terms: jax.Array, counted: jax.Array) -> jax.Array:
    """Return the mean of a group's Dice terms over the classes that count, of each sample's group: float32 `b`.

    Args:
        terms: `b k`, the Dice loss of each class over all samples of the sample's group.
        counted: `b k` bool. A group in which no class counts has NaN.
    """
    number = jnp.sum(counted, axis=1)
    mean = jnp.sum(jnp.where(counted, terms, 0.0), axis=1) / jnp.maximum(number, 1)
    return jnp.where(number > 0, jnp.maximum(mean, LEAST), jnp.nan)


def weights(
    losses: jax.Array, groups: jax.Array, gamma: float, form: str = "present", num_groups: int = 0
) -> jax.Array:
    """Return how much of its probabilities each sample keeps, float32 `b`.

    Args:
        losses: `b`, the loss of each sample's group; NaN where it has none.
        groups: `b` int, -1 where a person's group is not known. Such samples, and those of groups without a loss, are no
            part of the minimum and keep as much as the best group.
        gamma: from 0 on; 0: all keep the same.
        form: "present", or "released", whose minimum is 0 where one of the `num_groups` is not in the batch.
        num_groups: of all people; only "released" asks.
    """
    known = (groups >= 0) & jnp.isfinite(losses)
    least = jnp.min(losses, initial=jnp.inf, where=known)
    if form == "released":
        least = jnp.where(distinct(groups) < num_groups, 0.0, least)
    ratio = jnp.where(known, least / jnp.where(known, losses, 1.0), 1.0)
    return jax.lax.stop_gradient(jnp.tanh(ratio**gamma).astype(jnp.float32))


def distinct(groups: jax.Array) -> jax.Array:
    """Return how many known groups a batch has; groups `b` int."""
    earlier = same(groups) & jnp.tril(jnp.ones((len(groups),) * 2, bool), -1)
    return jnp.sum((groups >= 0) & ~jnp.any(earlier, axis=1))


def same(groups: jax.Array) -> jax.Array:
    """Return which samples are of one group, bool `b b`; those of an unknown group are of none but their own."""
    alike = (groups[:, None] == groups[None, :]) & (groups >= 0)[:, None]
    return alike | jnp.eye(len(groups), dtype=bool)
