"""What ETTA is compared with: Tent's online steps, and batch-norm statistics of the scan. Same arguments, same result.

They have no guards: what they give is taken. Neither carries anything from one scan to the next.
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
from ukbob_jax.inference.windows import sliding
from ukbob_jax.inference.windows.entropy import voxel_entropy
from ukbob_jax.models import architecture

BATCH_NORM = "batch_stats"  # Flax's name of the collection


def tent(
    model: nn.Module,
    params: Mapping[str, Any],
    volume: jax.Array | np.ndarray,
    *,
    roi: Sequence[int],
    learning_rate: float = 1e-3,
    select: str | None = None,
    model_state: Mapping[str, Any] | None = None,
    overlap: float | Sequence[float] = 0.0,
    batch: int = 1,
    activation: str = "softmax",
    exclude: Sequence[int] = (),
) -> etta.AdaptResult:
    """Tent (Wang et al. 2021) on one scan: an Adam step on the norms after each batch of windows, once over the scan.

    Where the network has batch norm, the scan's statistics first replace the running ones. Tent predicts each batch
    on its way; here the whole scan is predicted with what came out at the end.

    Args: as `etta.etta`.

    Raises:
        ConfigError: nothing is selected, or a setting cannot be used.
    """
    scan, settings = window_batches.lay(
        volume, roi, overlap=overlap, batch=batch, activation=activation, exclude=exclude
    )
    source = {} if model_state is None else dict(model_state)
    model = etta.hashable(model)
    state = with_statistics(model, params, source, scan, settings, 1.0) if source.get(BATCH_NORM) else source
    chosen, others = selection.split(params, select)
    chosen = _online(model, chosen, others, state, scan, learning_rate, settings)
    adapted = selection.join(chosen, others)
    return _measured(model, (params, source), (adapted, state), scan, settings, tuple(sorted(chosen)))


def batch_norm(
    model: nn.Module,
    params: Mapping[str, Any],
    volume: jax.Array | np.ndarray,
    *,
    roi: Sequence[int],
    share: float = 0.5,
    model_state: Mapping[str, Any] | None = None,
    overlap: float | Sequence[float] = 0.0,
    batch: int = 1,
    activation: str = "softmax",
    exclude: Sequence[int] = (),
) -> etta.AdaptResult:
    """Batch norm with statistics between the training's and the scan's; no parameter changes (Schneider et al. 2020).

    Args:
        share: of the scan's statistics: 0 keeps the running ones, 1 replaces them.
        model_state: has the collection `batch_stats`. The other arguments as `etta.etta`.

    Raises:
        ConfigError: the network has no batch norm, or a setting cannot be used.
    """
    source = {} if model_state is None else dict(model_state)
    if not source.get(BATCH_NORM):
        raise ConfigError(
            "adapt 'bn' needs a network with batch norm (--config.model.norm=batch); this one has none."
        )
    if not 0 <= share <= 1:
        raise ConfigError(f"adapt 'bn': share {share} is outside 0 to 1.")
    scan, settings = window_batches.lay(
        volume, roi, overlap=overlap, batch=batch, activation=activation, exclude=exclude
    )
    model = etta.hashable(model)
    state = with_statistics(model, params, source, scan, settings, share)
    return _measured(model, (params, source), (params, state), scan, settings, ())


def with_statistics(
    model: nn.Module,
    params: Any,
    state: dict,
    scan: window_batches.Scan,
    settings: window_batches.Settings,
    share: float,
) -> dict:
    """`state` with batch norm's statistics moved by `share` towards those of the scan's windows together."""
    said = architecture.said_by(model)
    calm = said.without_dropout(model) if said else architecture.without_rates(model)
    found = _statistics(calm, params, state, scan, settings)
    return {**state, BATCH_NORM: _blend(dict(state[BATCH_NORM]), found, share)}


def _blend(running: Mapping[str, Any], found: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Means and variances moved by `share` from `running` to `found`; what else a norm keeps stays."""
    if "mean" in running:
        return {**running, **{n: (1 - share) * running[n] + share * found[n] for n in ("mean", "var")}}
    return {name: _blend(running[name], found[name], share) for name in running}


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _statistics(
    model: nn.Module, params: Any, state: dict, scan: window_batches.Scan, settings: window_batches.Settings
) -> dict:
    """Mean and variance in front of every batch norm, over all windows: as if they were one batch."""

    def updated(start: float, x: jax.Array) -> Any:
        running = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), state[BATCH_NORM])
        variables = {"params": params, **state, BATCH_NORM: running}
        return dict(model.apply(variables, x, train=True, mutable=[BATCH_NORM])[1][BATCH_NORM])

    def visit(sums: tuple, xs: tuple) -> tuple[tuple, None]:
        x = sliding.cut(scan.volume, xs[0], settings.window.roi)
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


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _online(
    model: nn.Module,
    chosen: dict,
    others: dict,
    state: dict,
    scan: window_batches.Scan,
    learning_rate: jax.Array,
    settings: window_batches.Settings,
) -> dict:
    """The norms after one Adam step per batch of windows."""
    weights, optimizer = window_batches.voxel_weights(scan), optax.adam(learning_rate)

    def loss(chosen: dict, start: jax.Array, count: jax.Array) -> jax.Array:
        x = sliding.cut(scan.volume, start, settings.window.roi)
        logits = model.apply({"params": selection.join(chosen, others), **state}, x).astype(jnp.float32)
        w = sliding.cut(weights, start, settings.window.roi) * count[:, None, None, None]
        return jnp.sum(w * voxel_entropy(logits, settings.activation, settings.exclude)) / jnp.sum(w)

    def step(carry: tuple, xs: tuple) -> tuple[tuple, None]:
        chosen, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(chosen, *xs), opt_state, chosen)
        return (optax.apply_updates(chosen, updates), opt_state), None

    return lax.scan(step, (chosen, optimizer.init(chosen)), (scan.starts, scan.counts))[0][0]


def _measured(
    model: nn.Module,
    source: tuple[Any, dict],
    adapted: tuple[Any, dict],
    scan: window_batches.Scan,
    settings: window_batches.Settings,
    selected: tuple[str, ...],
) -> etta.AdaptResult:
    """Entropy and classes before and after, as ETTA reports them; source and adapted: (params, other collections)."""
    before, after = (etta.measure(model, *given, scan, settings) for given in (source, adapted))
    return etta.AdaptResult(
        params=adapted[0],
        entropy_before=before.entropy,
        entropy_after=after.entropy,
        accepted=True,
        reason="taken without guards",
        entropies=(before.entropy, after.entropy),
        drift=etta.drift(before.shares, after.shares, int(settings.activation == "softmax")),
        skipped=0,
        selected=selected,
        shares_before=before.shares,
        shares_after=after.shares,
        model_state=adapted[1],
    )
