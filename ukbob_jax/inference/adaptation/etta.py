"""Entropy Test-Time Adaptation: fit a trained network's norms to one scan, without labels.

UKBOB's ETTA lowers the mean voxel entropy of the prediction on the scan at hand by changing the scale and bias of
norms only, then predicts. Every scan starts from the source parameters with a fresh optimiser.

All windows of the scan are visited in one `lax.scan` and their gradients added, so a step follows the exact
gradient of the whole scan's entropy at the memory of one batch of windows. Steps, guards and the final measurement
are one compiled program, kept per (model, bucket, settings): scans with as many windows along each axis share one.
Where that is too slow, a step can follow the windows of a sample instead (`windows`).

Entropy alone is lowest where everything is background, so what came out is checked, and refused if it is not
finite, not lower, or not the same anatomy any more; each check can be switched off.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from ukbob_jax.inference.adaptation import selection, window_batches
from ukbob_jax.inference.windows import sliding
from ukbob_jax.inference.windows.entropy import background, class_counts, voxel_entropy

LEAST_FOREGROUND = 0.01  # share of the scan; below it, drift is measured against this


class AdaptResult(NamedTuple):
    """What adaptation did to one scan."""

    params: Any  # adapted; the very tree that was given if not accepted
    entropy_before: float  # nats, mean over the scan's voxels, with the source parameters
    entropy_after: float  # with the adapted parameters, also when they were refused
    accepted: bool
    reason: str  # "accepted", or why not
    entropies: tuple[float, ...]  # before, then after each step; with sampled windows, before and after
    drift: float  # how much classes moved: 1 is all foreground lost; see `etta`
    skipped: int  # steps left out because entropy or a gradient was not finite
    selected: tuple[str, ...]  # paths of the parameters that could change
    shares_before: np.ndarray  # k, share of the scan predicted as each class
    shares_after: np.ndarray
    model_state: Any = None  # other collections, where these were adapted too


class Measured(NamedTuple):
    """What a network says of a scan as a whole."""

    entropy: float  # nats, mean over the scan's voxels
    shares: np.ndarray  # k, share of the scan predicted as each class


class _Sums(NamedTuple):
    """Totals over windows."""

    entropy: jax.Array  # weighted
    weight: jax.Array  # 1, or less where the background counts less
    shares: jax.Array  # k, share of the scan predicted as each class


class _Outcome(NamedTuple):
    """What the program returns."""

    adapted: dict
    entropies: jax.Array  # steps + 1
    entropy: jax.Array  # of `adapted`
    shares_before: jax.Array
    shares: jax.Array
    skipped: jax.Array


def etta(
    model: nn.Module,
    params: Mapping[str, Any],
    volume: jax.Array | np.ndarray,
    *,
    roi: Sequence[int],
    steps: int = 1,
    learning_rate: float = 1e-3,
    select: str | None = None,
    model_state: Mapping[str, Any] | None = None,
    mask: jax.Array | np.ndarray | None = None,
    overlap: float | Sequence[float] = 0.0,
    batch: int = 1,
    optimizer: str = "adam",
    activation: str = "softmax",
    background_weight: float = 1.0,
    exclude: Sequence[int] = (),
    ceiling: float | None = None,
    skip_nonfinite: bool = True,
    must_fall: bool = True,
    max_drift: float | None = 0.5,
    windows: int | None = None,
    seed: int = 0,
) -> AdaptResult:
    """Adapt `params` to one scan by lowering the entropy of its prediction.

    The entropy is the mean over the voxels of the scan that `mask` keeps. Each is seen in the windows of a sliding
    grid, and where windows overlap (also at the far border, whose window is moved back) the mean over the windows
    that see it counts; voxels of padding do not. With `overlap` 0 a step costs one forward and backward pass over
    the scan; after the last step one more forward pass measures the result.

    Drift is the sum over foreground classes of the change in predicted voxels, divided by the predicted foreground
    before (at least 1 % of the scan): 0 is none, 1 all foreground lost, doubled, or half of it given other names.

    Args:
        model: Flax module, called as `model.apply({"params": params, **model_state}, b *roi c)`.
        params: nested dictionaries; never changed.
        volume: `x y z c`, preprocessed as in training.
        roi: window, voxels, x y z; 0 or less takes the whole axis.
        steps: updates, each over the whole scan.
        learning_rate: of the optimiser; a new value compiles nothing.
        select: regular expression on "/"-joined parameter paths; None takes scale and bias of all norms.
        model_state: other collections of the module, such as batch_stats; read only.
        mask: `x y z`, 0 where voxels do not count (padding to a bucket, air), else their weight.
        overlap: share of a window its neighbour covers.
        batch: windows in a call of the model.
        optimizer: "adam" or "sgd".
        activation: "softmax", or "sigmoid": the sum of the channels' binary entropies, for overlapping regions.
        background_weight: weight of a voxel that is surely background (channel 0, or no channel for sigmoid);
            the others' weights lie between it and 1 by their probability. 1 is the plain mean.
        exclude: classes that get no probability.
        ceiling: voxels with more than this share of the largest possible entropy do not count (they are too uncertain
            to learn from); None counts all.
        skip_nonfinite: leave out steps with a non-finite entropy or gradient, and refuse a non-finite result.
        must_fall: keep the step with the lowest entropy, and refuse it unless it is below the source's; else keep
            the last step.
        max_drift: refuse a result that drifted further; None switches the check off.
        windows: for each step, drawn anew from those of the scan; None takes all. A step then costs `windows` in
            place of the whole scan, and one more forward pass over the scan measures what was before. The gradient
            is that of the mean entropy of the voxels drawn, and the last step is the one that is judged.
        seed: of the draw.

    Raises:
        ConfigError: nothing is selected, or a setting cannot be used. It is a ValueError.
    """
    scan, static = window_batches.lay(
        volume,
        roi,
        mask=mask,
        overlap=overlap,
        batch=batch,
        steps=steps,
        optimizer=optimizer,
        activation=activation,
        background_weight=float(background_weight),
        exclude=exclude,
        ceiling=ceiling,
        skip_nonfinite=skip_nonfinite,
        must_fall=must_fall,
        windows=windows,
        seed=seed,
    )
    chosen, others = selection.split(params, select)
    state = {} if model_state is None else dict(model_state)
    outcome = jax.device_get(_adapt(hashable(model), chosen, others, state, scan, learning_rate, static))
    return _judged(outcome, params, others, static, max_drift)


def measure(
    model: nn.Module,
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    scan: window_batches.Scan,
    settings: window_batches.Settings,
) -> Measured:
    """Entropy and classes of a scan under given parameters; nothing is adapted."""
    still = dataclasses.replace(settings, steps=0)
    leaves = selection.split(params, ".")[0]
    outcome = jax.device_get(_adapt(model, leaves, {}, dict(state), scan, 0.0, still))
    return Measured(float(outcome.entropies[-1]), outcome.shares_before)


def drift(before: np.ndarray, after: np.ndarray, first: int = 1) -> float:
    """How much the predicted classes moved; see `etta`. Classes below `first` are background."""
    moved = np.abs(after - before)[first:].sum()
    return float(moved / max(before[first:].sum(), LEAST_FOREGROUND))


def hashable(model: nn.Module) -> nn.Module:
    """The module with tuples in place of lists, so that its programs can be kept."""
    fields = {
        name: getattr(model, name)
        for name in type(model).__dataclass_fields__
        if name not in ("parent", "name")
    }
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return model.clone(**lists) if lists else model


def _judged(
    outcome: _Outcome,
    params: Mapping[str, Any],
    others: dict,
    settings: window_batches.Settings,
    max_drift: float | None,
) -> AdaptResult:
    """Decide whether the adapted parameters are used."""
    before, after = float(outcome.entropies[0]), float(outcome.entropy)
    first = 1 if settings.activation == "softmax" else 0  # sigmoid has no background channel
    moved = drift(outcome.shares_before, outcome.shares, first)
    if settings.skip_nonfinite and not np.isfinite(after):
        reason = "entropy is not finite"
    elif settings.must_fall and not after < before:
        reason = "entropy did not fall"
    elif max_drift is not None and not moved <= max_drift:
        reason = f"predicted classes drifted by {moved:.2f}, more than {max_drift:g}"
    else:
        reason = "accepted"
    return AdaptResult(
        params=selection.join(outcome.adapted, others) if reason == "accepted" else params,
        entropy_before=before,
        entropy_after=after,
        accepted=reason == "accepted",
        reason=reason,
        entropies=tuple(float(e) for e in outcome.entropies),
        drift=moved,
        skipped=int(outcome.skipped),
        selected=tuple(sorted(outcome.adapted)),
        shares_before=outcome.shares_before,
        shares_after=outcome.shares,
    )


def largest(classes: int, settings: window_batches.Settings) -> float:
    """The largest entropy a voxel can have, nats."""
    kept = classes - len(settings.exclude)
    return float(np.log(kept) if settings.activation == "softmax" else kept * np.log(2))


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _adapt(
    model: nn.Module,
    chosen: dict,
    others: dict,
    state: dict,
    scan: window_batches.Scan,
    learning_rate: jax.Array,
    settings: window_batches.Settings,
) -> _Outcome:
    roi, weights = settings.window.roi, window_batches.voxel_weights(scan)

    def window_sums(chosen: dict, start: jax.Array, count: jax.Array) -> tuple[jax.Array, _Sums]:
        x = sliding.cut(scan.volume, start, roi)  # b x y z c
        logits = model.apply({"params": selection.join(chosen, others), **state}, x).astype(jnp.float32)
        w = sliding.cut(weights, start, roi) * count[:, None, None, None]
        shares = class_counts(logits, w, settings.activation, settings.exclude)
        if settings.background_weight != 1:
            surely = lax.stop_gradient(background(logits, settings.activation, settings.exclude))
            w = w * (1 - (1 - settings.background_weight) * surely)
        entropy = voxel_entropy(logits, settings.activation, settings.exclude)
        if settings.ceiling is not None:
            w = w * lax.stop_gradient(entropy < settings.ceiling * largest(logits.shape[-1], settings))
        total = jnp.sum(w * entropy)
        return total, _Sums(total, jnp.sum(w), shares)

    def sweep(visit: Any, chosen: dict, batches: tuple[jax.Array, jax.Array] | None = None) -> Any:
        """Add what `visit` gives over windows, `m batch ...`: all of the scan's, unless given."""
        batches = (scan.starts, scan.counts) if batches is None else batches
        like = jax.eval_shape(visit, chosen, *jax.tree.map(lambda a: a[0], batches))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return lax.scan(lambda s, xs: (jax.tree.map(jnp.add, s, visit(chosen, *xs)), None), zeros, batches)[0]

    return _descend(
        functools.partial(sweep, jax.grad(window_sums, has_aux=True)),
        functools.partial(sweep, lambda *args: window_sums(*args)[1]),
        chosen,
        learning_rate,
        scan.sampled,
        settings,
    )


def _descend(
    gradient: Any,
    measure: Any,
    source: dict,
    learning_rate: jax.Array,
    sampled: tuple[jax.Array, jax.Array] | None,
    settings: window_batches.Settings,
) -> _Outcome:
    """Take the steps. `gradient(chosen, windows)` gives summed gradients and `_Sums`; `measure(chosen)` gives `_Sums`.

    `sampled`: the windows of each step. Their entropies are of different voxels, so no step is told to be the best.
    """
    optimizer = window_batches.OPTIMIZERS[settings.optimizer](learning_rate)

    def better(best: tuple, chosen: dict, entropy: jax.Array, shares: jax.Array) -> tuple:
        use = entropy < best[1] if settings.must_fall else True
        return jax.tree.map(lambda a, b: jnp.where(use, a, b), (chosen, entropy, shares), best)

    def step(carry: tuple, xs: tuple) -> tuple[tuple, tuple]:
        (chosen, opt_state, best, skipped), (index, windows) = carry, xs
        total, sums = gradient(chosen, windows)
        entropy, shares = sums.entropy / sums.weight, sums.shares
        if sampled is None:  # the first measurement is the source's, which is no candidate
            tried = better(best, chosen, entropy, shares)
            best = jax.tree.map(lambda a, b: jnp.where(index > 0, a, b), tried, best)
        grads = jax.tree.map(lambda g: g / sums.weight, total)
        finite = functools.reduce(
            jnp.logical_and, [jnp.isfinite(g).all() for g in jax.tree.leaves((grads, entropy))]
        )
        updates, new_state = optimizer.update(grads, opt_state, chosen)
        moved = (optax.apply_updates(chosen, updates), new_state)
        take = finite if settings.skip_nonfinite else True
        chosen, opt_state = jax.tree.map(lambda a, b: jnp.where(take, a, b), moved, (chosen, opt_state))
        return (chosen, opt_state, best, skipped + ~jnp.asarray(take)), (entropy, shares)

    like = jax.eval_shape(measure, source).shares
    best = (source, jnp.float32(jnp.inf), jnp.zeros(like.shape, like.dtype))
    start = (source, optimizer.init(source), best, jnp.int32(0))
    xs = (jnp.arange(settings.steps), sampled)
    (chosen, _, best, skipped), (entropies, shares) = lax.scan(step, start, xs)
    if sampled is not None:
        first = measure(source)
        entropies, shares = (first.entropy / first.weight)[None], first.shares[None]
    last = measure(chosen)
    entropies = jnp.append(entropies, last.entropy / last.weight)
    shares = jnp.concatenate([shares, last.shares[None]])
    chosen, entropy, final = better(best, chosen, entropies[-1], shares[-1])
    entropy = jnp.where(jnp.isinf(entropy), entropies[-1], entropy)  # no step was finite
    return _Outcome(chosen, entropies, entropy, shares[0], final, skipped)
