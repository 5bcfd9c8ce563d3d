"""One training step, a pure function. Other recipes are other losses, augmentations and optimizers handed to it."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ukbob_jax.training.optimizer import Optimizer
from ukbob_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Loss = Callable[..., jax.Array]
Augment = Callable[[jax.Array, Batch], Batch]


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    loss_fn: Loss,
    augment: Augment | None = None,
    accumulate: int = 1,
    ema: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state, and what to report of this step.

    All randomness follows from `key` and `state.step`, so a resumed run draws what an undisturbed one would have.
    If loss or gradient is not finite, the step counts but changes neither parameters nor optimizer.

    Args:
        state: the current one.
        batch: "image" `b x y z c` float32, "label" `b x y z` integer, and, if some cases are labelled in part,
            "annotated" `b k` bool. Other entries are left alone.
        key: the same at every step.
        model: called as `model(image, train=True)`, with a "dropout" key.
        optimizer: of `optimizer.build`.
        loss_fn: (logits, labels) -> scalar, with `annotated=` where the batch has it.
        augment: (key, batch) -> batch, on the device.
        accumulate: passes of the network over that share of the batch each, one after the other, for batches whose
            activations do not fit. Loss and gradient are the means over the passes. That is the loss of the whole
            batch, up to rounding, where each case counts the same in it; cross entropy counts voxels, and so differs
            a little where passes have different numbers of ignored ones.
        ema: decay of the running average of the parameters, for states that have one. Early on it is lower,
            (1 + n) / (10 + n) after n updates, so that the random start is forgotten.
    Returns:
        The state after the step, and scalars: "loss", "grad_norm", "learning_rate", "skipped" (1 if this step
        was), "skipped_in_row".
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    if augment is not None:
        batch = augment(augment_key, batch)
    objective = functools.partial(_objective, model=model, loss_fn=loss_fn)
    loss, model_state, grads = _gradient(objective, state, batch, dropout_key, accumulate)
    grad_norm = optax.global_norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)  # noqa: E731
    skipped = 1 - finite.astype(jnp.int32)
    updates_made = (state.step - state.skipped).astype(jnp.float32)
    decay = jnp.minimum(ema, (1 + updates_made) / (10 + updates_made))
    average = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.ema, params if ema else {})
    after = TrainState(
        step=state.step + 1,
        params=keep(params, state.params),
        model_state=keep(model_state, state.model_state),
        opt_state=keep(opt_state, state.opt_state),
        ema=keep(average, state.ema),
        skipped=state.skipped + skipped,
        skipped_in_row=(state.skipped_in_row + 1) * skipped,
    )
    metrics = {
        "loss": loss,
        "grad_norm": grad_norm,
        "learning_rate": jnp.asarray(optimizer.learning_rate(state.step - state.skipped), jnp.float32),
        "skipped": skipped,
        "skipped_in_row": after.skipped_in_row,
    }
    return after, metrics


def _objective(
    params: Any, model_state: Any, batch: Batch, key: jax.Array, *, model: nn.Module, loss_fn: Loss
) -> tuple[jax.Array, Any]:
    """The loss, and the model's other collections after the pass."""
    logits, changed = model.apply(
        {"params": params, **model_state},
        batch["image"],
        train=True,
        rngs={"dropout": key},
        mutable=list(model_state),
    )
    extra = {"annotated": batch["annotated"]} if "annotated" in batch else {}
    return loss_fn(logits, batch["label"], **extra), changed


def _gradient(
    objective: Callable, state: TrainState, batch: Batch, key: jax.Array, passes: int
) -> tuple[jax.Array, Any, Any]:
    """Loss, model state and gradient of `objective(params, model_state, part, key)`, as means over `passes` parts."""
    gradient = jax.value_and_grad(objective, has_aux=True)
    if passes == 1:
        (loss, model_state), grads = gradient(state.params, state.model_state, batch, key)
        return loss, model_state, grads
    # Row i goes to pass i % passes: every device then works on rows it already holds.
    cut = lambda rows: jnp.moveaxis(rows.reshape(-1, passes, *rows.shape[1:]), 1, 0)  # noqa: E731
    parts = {name: cut(batch[name]) for name in ("image", "label", "annotated") if name in batch}

    def add(sums: tuple, number_and_part: tuple) -> tuple[tuple, None]:
        number, part = number_and_part
        loss, model_state, grads = sums
        (more, model_state), found = gradient(
            state.params, model_state, part, jax.random.fold_in(key, number)
        )
        return (loss + more, model_state, jax.tree.map(jnp.add, grads, found)), None

    start = (jnp.zeros(()), state.model_state, jax.tree.map(jnp.zeros_like, state.params))
    (loss, model_state, grads), _ = jax.lax.scan(add, start, (jnp.arange(passes), parts))
    return loss / passes, model_state, jax.tree.map(lambda g: g / passes, grads)
