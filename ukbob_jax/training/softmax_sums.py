"""The sums over voxels of which Dice and cross entropy of a softmax consist, with a gradient written by hand.

Logits are read as few times as possible, and nothing of their size is written but their gradient, which is worked out again
from logits and labels. On a CPU a step takes so many voxels that its softmax stays in the second level cache.

Letters: b batch, v voxels, k classes; r voxels of a step.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

VALUES_PER_STEP = 200_000  # of a step on a CPU, 0.8 MB of logits


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def softmax_sums(
    logits: jax.Array, labels: jax.Array, valid: jax.Array, factors: jax.Array, squared: bool
) -> tuple[jax.Array, ...]:
    """Sums over voxels, of the softmax p of the logits and of t, which is 1 where the label is the class and else 0.

    Args:
        logits: `b v k`, any float type; the arithmetic is float32.
        labels: `b v`, integers. One that is no class is nowhere 1.
        valid: `b v` bool, the voxels of the first three sums.
        factors: `b v` float32, on the voxels of the last sum.
        squared: p^2 in the second sum.
    Returns:
        Sums of p t, of p, and of t, each `b k`, and over everything of -log p of the label; float32. The gradient is
        that of the logits alone.
    """
    return _forward(logits, labels, valid, factors, squared)[0]


def _forward(
    logits: jax.Array, labels: jax.Array, valid: jax.Array, factors: jax.Array, squared: bool
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    inputs = (logits, labels, valid, factors)
    *sums, log_sum = lax.platform_dependent(
        *inputs,
        cpu=functools.partial(_sums_in_steps, squared=squared),
        default=functools.partial(_sums, squared=squared),
    )
    return (*sums[:3], jnp.sum(sums[3])), (*inputs, log_sum)


def _backward(
    squared: bool, residuals: tuple[jax.Array, ...], given: tuple[jax.Array, ...]
) -> tuple[jax.Array | None, ...]:
    of_both, of_p, _, of_surprise = given
    gradient = lax.platform_dependent(
        *residuals,
        of_both,
        of_p,
        of_surprise,
        cpu=functools.partial(_gradient_in_steps, squared=squared),
        default=functools.partial(_gradient, squared=squared),
    )
    return gradient, None, None, None


softmax_sums.defvjp(_forward, _backward)


def _sums(
    logits: jax.Array, labels: jax.Array, valid: jax.Array, factors: jax.Array, squared: bool
) -> tuple[jax.Array, ...]:
    """Sums of p t, p and t, `b k`, of the surprise, `b`, and the logsumexp, `b v`; all at once, for XLA to fuse."""
    z = logits.astype(jnp.float32)
    log_sum = jax.nn.logsumexp(z, axis=-1)
    p = jnp.exp(z - log_sum[..., None])
    true = _true(labels, z)
    counted = valid[..., None]
    both = jnp.sum(jnp.where(true & counted, p, 0.0), axis=1)
    predicted = jnp.sum(jnp.where(counted, p * p if squared else p, 0.0), axis=1)
    present = jnp.sum(true & counted, axis=1, dtype=jnp.float32)
    surprise = log_sum - jnp.sum(jnp.where(true, z, 0.0), axis=-1)
    return both, predicted, present, jnp.sum(surprise * factors, axis=1), log_sum


def _gradient(
    logits: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    factors: jax.Array,
    log_sum: jax.Array,
    of_both: jax.Array,
    of_p: jax.Array,
    of_surprise: jax.Array,
    squared: bool,
) -> jax.Array:
    """The gradient of the logits, of their type, from those of the sums (`b k`, `b k`, scalar)."""
    z = logits.astype(jnp.float32)
    p = jnp.exp(z - log_sum[..., None])
    true = _true(labels, z)
    of_probs = jnp.where(true, of_both[:, None], 0.0) + of_p[:, None] * (2 * p if squared else 1.0)
    of_probs = jnp.where(valid[..., None], of_probs, 0.0)
    pull = jnp.sum(p * of_probs, axis=-1, keepdims=True)
    of_ce = (of_surprise * factors)[..., None]
    return (p * (of_probs - pull + of_ce) - jnp.where(true, of_ce, 0.0)).astype(logits.dtype)


def _sums_in_steps(
    logits: jax.Array, labels: jax.Array, valid: jax.Array, factors: jax.Array, squared: bool
) -> tuple[jax.Array, ...]:
    """As `_sums`. Sums are products with vectors, which a CPU does faster than masking and adding."""
    b, v, _ = logits.shape
    size = _voxels_per_step(logits.shape)

    def step(start: jax.Array) -> tuple[jax.Array, ...]:
        logits_, labels_, valid_, factors_ = (_cut(x, start, size) for x in (logits, labels, valid, factors))
        z, counted = logits_.astype(jnp.float32), valid_.astype(jnp.float32)
        log_sum = jax.nn.logsumexp(z, axis=-1)
        p = jnp.exp(z - log_sum[..., None])
        true = _true(labels_, z)
        both, predicted, present = (
            jnp.einsum("br,brk->bk", counted, x)
            for x in (jnp.where(true, p, 0.0), p * p if squared else p, true.astype(jnp.float32))
        )
        surprise = log_sum - jnp.sum(jnp.where(true, z, 0.0), axis=-1)
        return both, predicted, present, jnp.sum(surprise * factors_, axis=1), log_sum

    *sums, log_sum = lax.map(step, jnp.arange(0, v, size))
    return (*(x.sum(0) for x in sums), jnp.moveaxis(log_sum, 0, 1).reshape(b, v))


def _gradient_in_steps(*arrays: Any, squared: bool) -> jax.Array:
    """As `_gradient`; each step writes over the logits that it has read, so that one array holds both."""
    logits, *of_voxels, of_both, of_p, of_surprise = arrays
    size = _voxels_per_step(logits.shape)

    def step(i: jax.Array, mixed: jax.Array) -> jax.Array:
        cut = (_cut(x, i * size, size) for x in (mixed, *of_voxels))
        own = _gradient(*cut, of_both=of_both, of_p=of_p, of_surprise=of_surprise, squared=squared)
        return lax.dynamic_update_slice_in_dim(mixed, own, i * size, axis=1)

    return lax.fori_loop(0, logits.shape[1] // size, step, logits)


def _cut(x: jax.Array, start: jax.Array, size: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, start, size, axis=1)


def _true(labels: jax.Array, z: jax.Array) -> jax.Array:
    """Where the label is the class, of the shape of `z`."""
    classes = jnp.arange(z.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    return labels[..., None] == classes


def _voxels_per_step(shape: tuple[int, ...]) -> int:
    """The largest divisor of v that a step can take, or v where all of these are small."""
    batch, voxels, classes = shape
    most = min(voxels, max(1, VALUES_PER_STEP // (batch * classes)))
    found = next(size for size in range(most, 0, -1) if voxels % size == 0)
    return found if 100 * found >= most else voxels
