"""One training step, a pure function. Other recipes are other losses, augmentations and optimizers handed to it."""

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
    Returns:
        The state after the step, and scalars: "loss", "grad_norm", "learning_rate", "skipped" (1 if this step
        was), "skipped_in_row".
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    if augment is not None:
        batch = augment(augment_key, batch)
    extra = {"annotated": batch["annotated"]} if "annotated" in batch else {}

    def objective(params: Any) -> tuple[jax.Array, Any]:
        logits, changed = model.apply(
            {"params": params, **state.model_state},
            batch["image"],
            train=True,
            rngs={"dropout": dropout_key},
            mutable=list(state.model_state),
        )
        return loss_fn(logits, batch["label"], **extra), changed

    (loss, model_state), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    grad_norm = optax.global_norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)  # noqa: E731
    skipped = 1 - finite.astype(jnp.int32)
    after = TrainState(
        step=state.step + 1,
        params=keep(params, state.params),
        model_state=keep(model_state, state.model_state),
        opt_state=keep(opt_state, state.opt_state),
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
