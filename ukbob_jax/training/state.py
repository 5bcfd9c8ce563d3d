"""Everything that changes during training, in one tree."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ukbob_jax.training.optimizer import Optimizer


@flax.struct.dataclass
class TrainState:
    """One value of training; `step` alone says which batch comes next.

    Attributes:
        step: int32, batches seen.
        params: the model's parameters.
        model_state: its other collections, such as `batch_stats`; empty for most models.
        opt_state: the optimizer's.
        skipped: int32, steps without update because loss or gradient was not finite.
        skipped_in_row: int32, how many of the latest steps were such.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    skipped: jax.Array
    skipped_in_row: jax.Array


def init(
    key: jax.Array, *, model: nn.Module, optimizer: Optimizer, image_shape: tuple[int, ...]
) -> TrainState:
    """A fresh state; pure, so that `jax.eval_shape` gives its shapes and `jax.jit` lets it be born sharded.

    Args:
        key: of the random parameters.
        model: called as `model(image, train=...)`.
        optimizer: of `optimizer.build`.
        image_shape: `b x y z c`.
    """
    variables = dict(model.init(key, jnp.zeros(image_shape, jnp.float32)))
    return start(variables.pop("params"), variables, optimizer)


def start(params: Any, model_state: Any, optimizer: Optimizer) -> TrainState:
    """The state before the first step from given parameters."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, model_state, optimizer.init(params), zero, zero)
