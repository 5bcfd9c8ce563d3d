"""Everything that changes during training, in one tree."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ukbob_jax.training.optimizer import Optimizer

PRETEXT = "pretext"  # key in the parameters of what a task has beside the network: heads, tokens, margins


class TrainState(flax.struct.PyTreeNode):
    """One value of training; `step` alone says which batch comes next.

    Attributes:
        step: int32, batches seen.
        params: the model's parameters.
        model_state: its other collections, such as `batch_stats`; empty for most models.
        opt_state: the optimizer's.
        ema: running average of the parameters, like `params`, that an objective may use as a teacher; empty where there is
            none.
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
        """Return the parameters to validate and to hand on: the average where there is one."""
        return self.ema or self.params


def init(
    key: jax.Array,
    *,
    variables: Callable[[jax.Array], Mapping[str, Any]],
    optimizer: Optimizer,
    ema: bool = False,
) -> TrainState:
    """Make a fresh state; pure, so that `jax.eval_shape` gives its shapes and `jax.jit` lets it be born sharded.

    Args:
        key: of the random parameters.
        variables: key -> "params" and the model's other collections, as Flax's `init`; see `variables_of`.
        optimizer: of `optimizer.build`.
        ema: keep a running average of the parameters.
    """
    model_state = dict(variables(key))
    return start(model_state.pop("params"), model_state, optimizer, ema)


def variables_of(model: nn.Module, image_shape: tuple[int, ...]) -> Callable[[jax.Array], Mapping[str, Any]]:
    """Return key -> variables of a model called with one image, `b x y z c` float32."""
    return lambda key: model.init(key, jnp.zeros(image_shape, jnp.float32))


def split_pretext(params: Any) -> tuple[Any, Any]:
    """The network's parameters, and those that its training has beside it; the second may be empty."""
    return {name: tree for name, tree in params.items() if name != PRETEXT}, params.get(PRETEXT, {})


def start(params: Any, model_state: Any, optimizer: Optimizer, ema: bool = False) -> TrainState:
    """Make the state before the first step from given parameters."""
    zero = jnp.zeros((), jnp.int32)
    average = jax.tree.map(jnp.copy, params) if ema else {}
    return TrainState(zero, params, model_state, optimizer.init(params), average, zero, zero)
