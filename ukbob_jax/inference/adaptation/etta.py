"""Entropy Test-Time Adaptation: fit a trained network's norms to one scan, without labels.

UKBOB's ETTA lowers the mean voxel entropy of the prediction on the scan at hand by changing the scale and bias of
norms only, then predicts. Every scan starts from the source parameters with a fresh optimiser.

All windows of the scan are visited in one `lax.scan` and their gradients added, so a step follows the exact
gradient of the whole scan's entropy at the memory of one batch of windows. Steps, guards and the final measurement
are one compiled program, kept per (model, bucket, options): scans with as many windows along each axis share one.
Where that is too slow, a step can follow the windows of a sample instead (`windows`).

Entropy alone is lowest where everything is background, so what came out is checked, and refused if it is not
finite, not lower, or not the same anatomy any more; each check can be switched off. A grader of labels can refuse it
too (`grade_guard`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation import selection, window_batches
from ukbob_jax.inference.adaptation.grade_guard import MeanGrades
from ukbob_jax.inference.adaptation.options import Adaptation
from ukbob_jax.inference.adaptation.window_batches import PaddedScan, Program
from ukbob_jax.inference.windows import sliding
from ukbob_jax.inference.windows.entropy import background, class_counts, voxel_entropy
from ukbob_jax.options import changed

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}
Compare = Callable[[Mapping[str, Any]], MeanGrades]
LEAST_FOREGROUND = 0.01  # fraction of the scan; below it, drift is measured against this


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
    class_fractions_before: np.ndarray  # k, fraction of the scan predicted as each class
    class_fractions_after: np.ndarray
    model_state: Any = None  # other collections, where these were adapted too
    grade_before: float | None = None  # mean over the organs found; None where nothing was graded
    grade_after: float | None = None


class Measured(NamedTuple):
    """What a network says of a scan as a whole."""

    entropy: float  # nats, mean over the scan's voxels
    class_fractions: np.ndarray  # k, fraction of the scan predicted as each class


class _Sums(NamedTuple):
    """Totals over windows."""

    entropy: jax.Array  # weighted
    weight: jax.Array  # 1, or less where the background counts less
    fractions: jax.Array  # k, fraction of the scan predicted as each class


class _Outcome(NamedTuple):
    """What the program returns."""

    adapted: dict
    entropies: jax.Array  # steps + 1
    entropy: jax.Array  # of `adapted`
    fractions_before: jax.Array
    fractions: jax.Array
    skipped: jax.Array


def etta(
    model: nn.Module,
    params: Mapping[str, Any],
    volume: jax.Array | np.ndarray,
    *,
    roi: Sequence[int],
    model_state: Mapping[str, Any] | None = None,
    options: Adaptation | None = None,
    compare: Compare | None = None,
    **changes: Any,
) -> AdaptResult:
    """Adapt `params` to one scan by lowering the entropy of its prediction.

    The entropy is the mean over the voxels of the scan. Each is covered by the windows of a sliding grid, and where
    windows overlap (also at the far border, whose window is moved back) the mean over the windows that cover it
    counts; voxels of padding do not. With `overlap` 0 a step costs one forward and backward pass over
    the scan; after the last step one more forward pass measures the result.

    Drift is the sum over foreground classes of the change in predicted voxels, divided by the predicted foreground
    before (at least 1 % of the scan): 0 is none, 1 all foreground lost, doubled, or half of it given other names.

    Args:
        model: Flax module, called as `model.apply({"params": params, **model_state}, b *roi c)`.
        params: nested dictionaries; never changed.
        volume: `x y z c`, preprocessed as in training.
        roi: window, voxels, x y z; 0 or less takes the whole axis.
        model_state: other collections of the module, such as batch_stats; read only.
        options: how to adapt; None takes the defaults of `Adaptation`.
        compare: parameters -> mean grades of the labels before and with these, for the guards that ask for grades.
        **changes: fields of `Adaptation` that differ from `options`, such as `steps=3`.

    Raises:
        ConfigError: nothing is selected, an option does not exist, or its value cannot be used. It is a ValueError.
    """
    options = changed(options or Adaptation(), changes, "etta")
    if options.grades and compare is None:
        raise ConfigError(
            f"etta: guard {options.guard!r} grades labels on the image, and neither is known here. Adapt with a "
            "Segmenter, or take guard 'entropy'."
        )
    scan, program = window_batches.prepare_scan(volume, roi, options)
    chosen, others = selection.split(params, options.select)
    state = {} if model_state is None else dict(model_state)
    outcome = _adapt(hashable(model), chosen, others, state, scan, options.learning_rate, program)
    # What was adapted stays where the parameters are: programs that take those take it too, and none is compiled anew.
    told = jax.device_get(outcome._replace(adapted={}))._replace(adapted=outcome.adapted)
    result = _judged(told, params, others, options)
    return _graded(result, params, compare) if options.grades and compare is not None else result


def measure(
    model: nn.Module,
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    scan: PaddedScan,
    program: Program,
) -> Measured:
    """Entropy and classes of a scan under given parameters; nothing is adapted."""
    leaves = selection.split(params, ".")[0]
    outcome = jax.device_get(_adapt(model, leaves, {}, dict(state), scan, 0.0, program.without_steps()))
    return Measured(float(outcome.entropies[-1]), np.asarray(outcome.fractions_before))


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
    lists: dict[str, Any] = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return model.clone(**lists) if lists else model


def _judged(
    outcome: _Outcome,
    params: Mapping[str, Any],
    others: dict,
    options: Adaptation,
) -> AdaptResult:
    """Decide whether the adapted parameters are used."""
    before, after = float(outcome.entropies[0]), float(outcome.entropy)
    first = 1 if options.activation == "softmax" else 0  # sigmoid has no background channel
    fractions_before, fractions_after = np.asarray(outcome.fractions_before), np.asarray(outcome.fractions)
    moved = drift(fractions_before, fractions_after, first)
    if options.skip_nonfinite and not np.isfinite(after):
        reason = "entropy is not finite"
    elif options.entropy_must_fall and not after < before:
        reason = "entropy did not fall"
    elif options.max_drift is not None and not moved <= options.max_drift:
        reason = f"predicted classes drifted by {moved:.6g}, more than {options.max_drift:g}"
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
        class_fractions_before=fractions_before,
        class_fractions_after=fractions_after,
    )


def _graded(result: AdaptResult, params: Mapping[str, Any], compare: Compare) -> AdaptResult:
    """Refuse a result that lowers the mean grade of the labels; one that was refused before is not graded."""
    if not result.accepted:
        return result
    grades = compare(result.params)
    told = result._replace(grade_before=grades.before, grade_after=grades.after)
    if not grades.fell:
        return told
    reason = f"mean grade fell from {grades.before:.6g} to {grades.after:.6g}"
    return told._replace(params=params, accepted=False, reason=reason)


def largest_entropy(classes: int, options: Adaptation) -> float:
    """The largest entropy a voxel can have, nats."""
    kept = classes - len(options.exclude)
    return float(np.log(kept) if options.activation == "softmax" else kept * np.log(2))


@functools.partial(jax.jit, static_argnames=("model", "program"))
def _adapt(
    model: nn.Module,
    chosen: dict,
    others: dict,
    state: dict,
    scan: PaddedScan,
    learning_rate: jax.Array | float,
    program: Program,
) -> _Outcome:
    roi, options, weights = program.roi, program.options, window_batches.voxel_weights(scan)
    volume = jnp.asarray(scan.volume)

    def window_sums(chosen: dict, start: jax.Array, count: jax.Array) -> tuple[jax.Array, _Sums]:
        x = sliding.cut(volume, start, roi)  # b x y z c
        variables = {"params": selection.join(chosen, others), **state}
        logits = sliding.ModuleApply(model)(variables, x).astype(jnp.float32)
        w = sliding.cut(weights, start, roi) * count[:, None, None, None]
        fractions = class_counts(logits, w, options.activation, options.exclude)
        if options.background_weight != 1:
            surely = lax.stop_gradient(background(logits, options.activation, options.exclude))
            w = w * (1 - (1 - options.background_weight) * surely)
        entropy = voxel_entropy(logits, options.activation, options.exclude)
        if options.ceiling is not None:
            w = w * lax.stop_gradient(entropy < options.ceiling * largest_entropy(logits.shape[-1], options))
        total = jnp.sum(w * entropy)
        return total, _Sums(total, jnp.sum(w), fractions)

    def sweep(visit: Any, chosen: dict, batches: tuple[Any, Any] | None = None) -> Any:
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
        options,
    )


def _descend(
    gradient: Any,
    measure: Any,
    source: dict,
    learning_rate: jax.Array | float,
    sampled: tuple[Any, Any] | None,
    options: Adaptation,
) -> _Outcome:
    """Take the steps. `gradient(chosen, windows)` gives summed gradients and `_Sums`; `measure(chosen)` gives `_Sums`.

    `sampled`: the windows of each step. Their entropies are of different voxels and do not compare, so the last step
    is kept.
    """
    optimizer = OPTIMIZERS[options.optimizer](learning_rate)

    def better(best: tuple, chosen: dict, entropy: jax.Array, fractions: jax.Array) -> tuple:
        use = entropy < best[1] if options.must_fall else True
        return jax.tree.map(lambda a, b: jnp.where(use, a, b), (chosen, entropy, fractions), best)

    def step(carry: tuple, xs: tuple) -> tuple[tuple, tuple]:
        (chosen, opt_state, best, skipped), (index, windows) = carry, xs
        total, sums = gradient(chosen, windows)
        entropy, fractions = sums.entropy / sums.weight, sums.fractions
        if sampled is None:  # the first measurement is the source's, which is no candidate
            tried = better(best, chosen, entropy, fractions)
            best = jax.tree.map(lambda a, b: jnp.where(index > 0, a, b), tried, best)
        grads = jax.tree.map(lambda g: g / sums.weight, total)
        finite = functools.reduce(
            jnp.logical_and, [jnp.isfinite(g).all() for g in jax.tree.leaves((grads, entropy))]
        )
        updates, new_state = optimizer.update(grads, opt_state, chosen)
        moved = (optax.apply_updates(chosen, updates), new_state)
        take = finite if options.skip_nonfinite else True
        chosen, opt_state = jax.tree.map(lambda a, b: jnp.where(take, a, b), moved, (chosen, opt_state))
        return (chosen, opt_state, best, skipped + ~jnp.asarray(take)), (entropy, fractions)

    like = jax.eval_shape(measure, source).fractions
    best = (source, jnp.float32(jnp.inf), jnp.zeros(like.shape, like.dtype))
    start = (source, optimizer.init(source), best, jnp.int32(0))
    xs = (jnp.arange(options.steps), sampled)
    (chosen, _, best, skipped), (entropies, fractions) = lax.scan(step, start, xs)
    if sampled is not None:
        first = measure(source)
        entropies, fractions = (first.entropy / first.weight)[None], first.fractions[None]
    last = measure(chosen)
    entropies = jnp.append(entropies, last.entropy / last.weight)
    fractions = jnp.concatenate([fractions, last.fractions[None]])
    chosen, entropy, final = better(best, chosen, entropies[-1], fractions[-1])
    entropy = jnp.where(jnp.isinf(entropy), entropies[-1], entropy)  # no step was finite
    return _Outcome(chosen, entropies, entropy, fractions[0], final, skipped)
