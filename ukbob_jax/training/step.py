"""One training step, a pure function. What is learnt is an objective handed to it; see `training/objectives`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ukbob_jax.training.optimizer import Optimizer
from ukbob_jax.training.state import TrainState

Params = Any  # tree of arrays
ModelState = Any  # the model's other collections, such as `batch_stats`
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
# (params, state, batch, key) -> loss, (model_state, metrics): what is learnt. The gradient is taken with respect to
# `params`; `state` has the model's other collections, and in `state.ema` a teacher where the objective wants one. Loss
# and metrics are scalars; metrics may have any name that is not in STEP_METRICS.
Objective = Callable[[Params, TrainState, Batch, jax.Array], tuple[jax.Array, tuple[ModelState, Metrics]]]
Augment = Callable[[jax.Array, Batch], Batch]

STEP_METRICS = ("loss", "grad_norm", "learning_rate", "skipped", "skipped_in_row")  # what every step reports
NOT_CUT = ("subject",)  # arrays of a batch that no objective sees in parts: they name its rows for the log


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    objective: Objective,
    optimizer: Optimizer,
    augment: Augment | None = None,
    accumulate: int = 1,
    views: int = 1,
    ema: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """Return the next state, and what to report of this step.

    All randomness follows from `key` and `state.step`, so a resumed run draws what an undisturbed one would have.
    If loss or gradient is not finite, the step counts but changes neither parameters nor optimizer.

    Args:
        state: the current one.
        batch: arrays by name, rows first, as `objective` wants them.
        key: the same at every step.
        objective: what is learnt.
        optimizer: of `optimizer.build`.
        augment: (key, batch) -> batch, on the device.
        accumulate: passes of the network over that share of the batch each, one after the other, for batches whose
            activations do not fit. Loss, metrics and gradient are the means over the passes. That is the loss of the
            whole batch, up to rounding, where each sample counts the same in it; cross entropy counts voxels, and so
            differs a little where passes have different numbers of ignored ones, and a contrastive loss compares the
            samples of one pass only.
        views: neighbouring rows of the batch that show one sample; they stay in one pass.
        ema: decay of the running average of the parameters, for states that have one. Early on it is lower,
            (1 + n) / (10 + n) after n updates, so that the random start is forgotten.
    Returns:
        The state after the step, and scalars: "loss", "grad_norm", "learning_rate", "skipped" (1 if this step
        was), "skipped_in_row", and the objective's own.
    Raises:
        ValueError: the objective has a metric with one of these names.
    """
    augment_key, objective_key = jax.random.split(jax.random.fold_in(key, state.step))
    if augment is not None:
        batch = augment(augment_key, batch)
    loss, (model_state, metrics), grads = _gradient(objective, state, batch, objective_key, accumulate, views)
    if taken := set(metrics) & set(STEP_METRICS):
        raise ValueError(
            f"the objective's metric {sorted(taken)[0]!r} has the name of one of the step's own."
        )
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    skipped = 1 - finite.astype(jnp.int32)
    after = TrainState(
        step=state.step + 1,
        params=_choose(finite, params, state.params),
        model_state=_choose(finite, model_state, state.model_state),
        opt_state=_choose(finite, opt_state, state.opt_state),
        ema=_choose(finite, _average(state, params, ema), state.ema),
        skipped=state.skipped + skipped,
        skipped_in_row=(state.skipped_in_row + 1) * skipped,
    )
    own = {
        "loss": loss,
        "grad_norm": grad_norm,
        "learning_rate": jnp.asarray(optimizer.learning_rate(state.step - state.skipped), jnp.float32),
        "skipped": skipped,
        "skipped_in_row": after.skipped_in_row,
    }
    return after, {**metrics, **own}


def _choose(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return the tree `new` where `condition` holds, else `old`."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def _average(state: TrainState, params: Params, ema: float) -> Params:
    """Return the running average after an update to `params`.

    As `optax.incremental_update`, which rounds otherwise: in this form an average equal to the parameters stays so.
    """
    updates_made = (state.step - state.skipped).astype(jnp.float32)
    decay = jnp.minimum(ema, (1 + updates_made) / (10 + updates_made))
    return jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.ema, params if ema else {})


def _gradient(
    objective: Objective, state: TrainState, batch: Batch, key: jax.Array, passes: int, views: int
) -> tuple[jax.Array, tuple[ModelState, Metrics], Params]:
    """Return loss, (model state, metrics) and gradient, as means over `passes` parts of the batch."""
    gradient = jax.value_and_grad(objective, has_aux=True)
    if passes == 1:
        (loss, aux), grads = gradient(state.params, state, batch, key)
        return loss, aux, grads
    parts = _cut(batch, passes, views)

    def add(sums: tuple, number_and_part: tuple) -> tuple[tuple, Metrics]:
        number, part = number_and_part
        loss, model_state, grads = sums
        (more, (model_state, metrics)), part_grads = gradient(
            state.params, state.replace(model_state=model_state), part, jax.random.fold_in(key, number)
        )
        return (loss + more, model_state, jax.tree.map(jnp.add, grads, part_grads)), metrics

    start = (jnp.zeros(()), state.model_state, jax.tree.map(jnp.zeros_like, state.params))
    (loss, model_state, grads), metrics = jax.lax.scan(add, start, (jnp.arange(passes), parts))
    metrics = jax.tree.map(lambda values: jnp.mean(values, axis=0), metrics)
    return loss / passes, (model_state, metrics), jax.tree.map(lambda g: g / passes, grads)


def _cut(batch: Mapping[str, jax.Array], passes: int, views: int) -> Batch:
    """Return every array `b ...` as `passes b/passes ...`.

    Sample i, with its `views` rows, goes to pass i % passes: every device then works on rows it already holds.
    """

    def cut(rows: jax.Array) -> jax.Array:
        samples = jnp.moveaxis(rows.reshape(-1, passes, views, *rows.shape[1:]), 1, 0)
        return samples.reshape(passes, -1, *rows.shape[1:])

    return {name: cut(rows) for name, rows in batch.items() if name not in NOT_CUT}
