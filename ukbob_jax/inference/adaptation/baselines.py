"""What ETTA is compared with: Tent's online steps, and batch-norm statistics of the scan. Same arguments, same result.

They have no guards: their result is always used. Neither carries anything from one scan to the next.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation import etta, selection, window_batches
from ukbob_jax.inference.adaptation.options import BatchNorm, Tent
from ukbob_jax.inference.adaptation.window_batches import PaddedScan, Program
from ukbob_jax.inference.windows import sliding
from ukbob_jax.inference.windows.entropy import voxel_entropy
from ukbob_jax.models import architecture
from ukbob_jax.options import changed

BATCH_NORM = "batch_stats"  # Flax's name of the collection


def tent(
    model: nn.Module,
    params: Mapping[str, Any],
    volume: jax.Array | np.ndarray,
    *,
    roi: Sequence[int],
    model_state: Mapping[str, Any] | None = None,
    options: Tent | None = None,
    **changes: Any,
) -> etta.AdaptResult:
    """Take an Adam step on the norms after each batch of windows, once over the scan (Tent, Wang et al. 2021).

    Where the network has batch norm, the scan's statistics first replace the running ones. Tent predicts each batch
    on its way; here the whole scan is predicted with what came out at the end.

    Args:
        model: Flax module, called as `model.apply({"params": params, **model_state}, b *roi c)`.
        params: nested dictionaries; never changed.
        volume: `x y z c`, preprocessed as in training.
        roi: window, voxels, x y z; 0 or less takes the whole axis.
        model_state: other collections of the module, such as batch_stats; never changed.
        options: None takes the defaults of `Tent`.
        **changes: fields of `Tent` that differ from `options`, such as `learning_rate=0.01`.

    Raises:
        ConfigError: nothing is selected, an option does not exist, or its value cannot be used.
    """
    options = changed(options or Tent(), changes, "tent")
    scan, program = window_batches.prepare_scan(volume, roi, options)
    source = {} if model_state is None else dict(model_state)
    model = etta.hashable(model)
    state = with_statistics(model, params, source, scan, program, 1.0) if source.get(BATCH_NORM) else source
    chosen, others = selection.split(params, options.select)
    chosen = _online(model, chosen, others, state, scan, options.learning_rate, program)
    adapted = selection.join(chosen, others)
    return _measured(model, (params, source), (adapted, state), scan, program, tuple(sorted(chosen)))


def batch_norm(
    model: nn.Module,
    params: Mapping[str, Any],
    volume: jax.Array | np.ndarray,
    *,
    roi: Sequence[int],
    model_state: Mapping[str, Any] | None = None,
    options: BatchNorm | None = None,
    **changes: Any,
) -> etta.AdaptResult:
    """Move batch norm's statistics from the training's towards the scan's (Schneider et al. 2020).

    No parameter changes.

    Args:
        model: Flax module, called as `model.apply({"params": params, **model_state}, b *roi c)`.
        params: nested dictionaries; never changed.
        volume: `x y z c`, preprocessed as in training.
        roi: window, voxels, x y z; 0 or less takes the whole axis.
        model_state: has the collection `batch_stats`; never changed.
        options: None takes the defaults of `BatchNorm`.
        **changes: fields of `BatchNorm` that differ from `options`, such as `fraction=1.0`.

    Raises:
        ConfigError: the network has no batch norm, an option does not exist, or its value cannot be used.
    """
    options = changed(options or BatchNorm(), changes, "bn")
    source = {} if model_state is None else dict(model_state)
    if not source.get(BATCH_NORM):
        raise ConfigError(
            "method 'bn' needs a network with batch norm, and this one has none. Choose another method."
        )
    scan, program = window_batches.prepare_scan(volume, roi, options)
    model = etta.hashable(model)
    state = with_statistics(model, params, source, scan, program, options.fraction)
    return _measured(model, (params, source), (params, state), scan, program, ())


def with_statistics(
    model: nn.Module,
    params: Any,
    state: dict,
    scan: PaddedScan,
    program: Program,
    fraction: float,
) -> dict:
    """Return `state` with batch norm's statistics moved by `fraction` towards those of the scan's windows together."""
    said = architecture.said_by(model)
    without_dropout = said.without_dropout(model) if said else architecture.without_rates(model)
    of_scan = _statistics(without_dropout, params, state, scan, program)
    return {**state, BATCH_NORM: _blend(dict(state[BATCH_NORM]), of_scan, fraction)}


def _blend(running: Mapping[str, Any], of_scan: Mapping[str, Any], fraction: float) -> dict[str, Any]:
    """Move means and variances by `fraction` from `running` to `of_scan`; what else a norm keeps stays."""
    if "mean" in running:
        moved = {n: (1 - fraction) * running[n] + fraction * of_scan[n] for n in ("mean", "var")}
        return {**running, **moved}
    return {name: _blend(running[name], of_scan[name], fraction) for name in running}


@functools.partial(jax.jit, static_argnames=("model", "program"))
def _statistics(model: nn.Module, params: Any, state: dict, scan: PaddedScan, program: Program) -> dict:
    """Mean and variance in front of every batch norm, over all windows: as if they were one batch."""
    volume = jnp.asarray(scan.volume)

    def updated(start: float, x: jax.Array) -> Any:
        running = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), state[BATCH_NORM])
        variables = {"params": params, **state, BATCH_NORM: running}
        return dict(model.apply(variables, x, train=True, mutable=[BATCH_NORM])[1][BATCH_NORM])

    def visit(sums: tuple, xs: tuple) -> tuple[tuple, None]:
        x = sliding.cut(volume, xs[0], program.roi)
        # new = momentum * running + (1 - momentum) * batch, for running 0 and 1: the momentum falls out
        low, high = (functools.partial(updated, start)(x) for start in (0.0, 1.0))
        batch = jax.tree.map(lambda a, b: a / jnp.maximum(1 - (b - a), 1e-6), low, high)
        first, second = _moments(batch)
        count = jnp.sum(xs[1])
        added = jax.tree.map(lambda s, m: s + count * m, sums[:2], (first, second))
        return (*added, sums[2] + count), None

    like = _moments(dict(state[BATCH_NORM]))
    zeros = jax.tree.map(jnp.zeros_like, like)
    first, second, count = lax.scan(visit, (*zeros, jnp.float32(0)), (scan.starts, scan.counts))[0]
    return _from_moments(*jax.tree.map(lambda s: s / count, (first, second)))


def _moments(statistics: Any) -> tuple[Any, Any]:
    """Trees of E[x] and E[x^2], each under the names of the modules."""
    return _each_norm(statistics, lambda s: s["mean"]), _each_norm(
        statistics, lambda s: s["var"] + s["mean"] ** 2
    )


def _from_moments(first: Any, second: Any) -> dict:
    """The collection of means and variances."""
    if isinstance(first, dict):
        return {name: _from_moments(first[name], second[name]) for name in first}
    return {"mean": first, "var": jnp.maximum(second - first**2, 0.0)}


def _each_norm(tree: Any, visit: Callable[[dict], jax.Array]) -> Any:
    return visit(tree) if "mean" in tree else {name: _each_norm(sub, visit) for name, sub in tree.items()}


@functools.partial(jax.jit, static_argnames=("model", "program"))
def _online(
    model: nn.Module,
    chosen: dict,
    others: dict,
    state: dict,
    scan: PaddedScan,
    learning_rate: jax.Array | float,
    program: Program,
) -> dict:
    """The norms after one Adam step per batch of windows."""
    weights, optimizer = window_batches.voxel_weights(scan), optax.adam(learning_rate)
    volume, options = jnp.asarray(scan.volume), program.options

    def loss(chosen: dict, start: jax.Array, count: jax.Array) -> jax.Array:
        x = sliding.cut(volume, start, program.roi)
        variables = {"params": selection.join(chosen, others), **state}
        logits = sliding.ModuleApply(model)(variables, x).astype(jnp.float32)
        w = sliding.cut(weights, start, program.roi) * count[:, None, None, None]
        return jnp.sum(w * voxel_entropy(logits, options.activation, options.exclude)) / jnp.sum(w)

    def step(carry: tuple, xs: tuple) -> tuple[tuple, None]:
        chosen, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(chosen, *xs), opt_state, chosen)
        return (optax.apply_updates(chosen, updates), opt_state), None

    return lax.scan(step, (chosen, optimizer.init(chosen)), (scan.starts, scan.counts))[0][0]


def _measured(
    model: nn.Module,
    source: tuple[Any, dict],
    adapted: tuple[Any, dict],
    scan: PaddedScan,
    program: Program,
    selected: tuple[str, ...],
) -> etta.AdaptResult:
    """Entropy and classes before and after, as ETTA reports them; source and adapted: (params, other collections)."""
    before, after = (etta.measure(model, *network, scan, program) for network in (source, adapted))
    return etta.AdaptResult(
        params=adapted[0],
        entropy_before=before.entropy,
        entropy_after=after.entropy,
        accepted=True,
        reason="taken without guards",
        entropies=(before.entropy, after.entropy),
        drift=etta.drift(
            before.class_fractions, after.class_fractions, int(program.options.activation == "softmax")
        ),
        skipped=0,
        selected=selected,
        class_fractions_before=before.class_fractions,
        class_fractions_after=after.class_fractions,
        model_state=adapted[1],
    )
