"""Learning from labels: a network's logits against the label map of each crop."""

from collections.abc import Callable

import flax.linen as nn
import jax

from ukbob_jax.training.state import TrainState
from ukbob_jax.training.step import Batch, Metrics, ModelState, Objective, Params

Loss = Callable[..., jax.Array]  # (logits, labels, annotated=..., weights=..., groups=...) -> scalar


def supervised(model: nn.Module, loss_fn: Loss) -> Objective:
    """The objective of a segmentation network.

    Its batches have "image" `b x y z c` float32, "label" `b x y z` integer and, where some cases are labelled for some
    classes only, "annotated" `b k` bool; where labels are believed to different degrees, "weights" `b k` float32; where
    the errors of groups of people bound each other, "groups" `b` int32.

    Args:
        model: called as `model(image, train=True)` with a "dropout" key.
        loss_fn: (logits, labels) -> scalar, with `annotated=`, `weights=` and `groups=` where the batch has them.
    """

    def objective(
        params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        logits, model_state = model.apply(
            {"params": params, **state.model_state},
            batch["image"],
            train=True,
            rngs={"dropout": key},
            mutable=list(state.model_state),
        )
        extra = {name: batch[name] for name in ("annotated", "weights", "groups") if name in batch}
        return loss_fn(logits, batch["label"], **extra), (model_state, {})

    return objective
