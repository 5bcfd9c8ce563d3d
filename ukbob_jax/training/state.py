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
        ema: running average of the parameters, like `params`; empty where there is none.
        skipped: int32, steps without update because loss or gradient was not finite.
        skipped_in_row: int32, how many of the latest steps were such.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any
    skipped: jax.Array
    skipped_in_row: jax.Array

    @property
    def inference_params(self) -> Any:
        """The parameters to validate and to hand on: the average where there is one."""
        return self.ema or self.params


def init(
    key: jax.Array,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    image_shape: tuple[int, ...],
    ema: bool = False,
) -> TrainState:
    """A fresh state; pure, so that `jax.eval_shape` gives its shapes and `jax.jit` lets it be born sharded.

    Args:
        key: of the random parameters.
        model: called as `model(image, train=...)`.
        optimizer: of `optimizer.build`.
        image_shape: `b x y z c`.
        ema: keep a running average of the parameters.
    """
    variables = dict(model.init(key, jnp.zeros(image_shape, jnp.float32)))
    return start(variables.pop("params"), variables, optimizer, ema)


def start(params: Any, model_state: Any, optimizer: Optimizer, ema: bool = False) -> TrainState:
    """The state before the first step from given parameters."""
    zero = jnp.zeros((), jnp.int32)
    average = jax.tree.map(jnp.copy, params) if ema else {}
    return TrainState(zero, params, model_state, optimizer.init(params), average, zero, zero)
