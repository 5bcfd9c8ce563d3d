"""A pass of a network inside an objective, whose parameters may hold parts of the task's own beside the network's."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.training.state import PRETEXT, TrainState
from ukbob_jax.training.step import Batch, ModelState, Params


class Rebuilt(NamedTuple):
    """What a task that rebuilds images shows of itself.

    Attributes:
        seen: `b x y z c`, as the network saw it.
        rebuilt: `b x y z c`, what it made of it; of a task that finds classes, int32 `b x y z 1`.
        truth: like `rebuilt`, what it shall make.
    """

    seen: jax.Array
    rebuilt: jax.Array
    truth: jax.Array


Show = Callable[[Params, TrainState, Batch, jax.Array], Rebuilt]


def of_network(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network's parameters, without the task's own."""
    return {name: value for name, value in params.items() if name != PRETEXT}


def dense(
    model: nn.Module, params: Params, state: TrainState, image: jax.Array, key: jax.Array
) -> tuple[jax.Array, ModelState]:
    """Return the network's maps `b x y z k` of `image` `b x y z c`, float32, and its next model state."""
    found, model_state = _apply(model, params, state, image, key, None)
    return found.astype(jnp.float32), model_state


def encode(
    model: nn.Module, params: Params, state: TrainState, image: jax.Array, key: jax.Array
) -> tuple[list[jax.Array], ModelState]:
    """Return the encoder's maps `b x y z c`, finest first, float32, and the next model state.

    Raises:
        ConfigError: the network does not say how to get its encoder's maps.
    """
    maps, model_state = _apply(model, params, state, image, key, features_of(model))
    return [level.astype(jnp.float32) for level in maps], model_state


def own(part: nn.Module, params: Params, *inputs: Any, method: str | None = None) -> Any:
    """Return what a part of the task's own, such as a head, gives for `inputs`."""
    return part.apply({"params": params[PRETEXT]}, *inputs, method=method)


def features_of(model: nn.Module) -> str:
    """Return the name of the method that gives the encoder's maps.

    Raises:
        ConfigError: there is none.
    """
    said = architecture.of(model)
    if not said.features or "encoder" not in said.parts:
        raise ConfigError(
            f"config.model.name: network {said.name!r} does not say what its encoder is, which this method pre-trains."
        )
    return said.features


def pooled(maps: list[jax.Array]) -> jax.Array:
    """Return the means over all voxels of every map, side by side: `b d`."""
    return jnp.concatenate([level.mean(axis=tuple(range(1, level.ndim - 1))) for level in maps], axis=-1)


def _apply(
    model: nn.Module, params: Params, state: TrainState, image: jax.Array, key: jax.Array, method: str | None
) -> tuple[Any, ModelState]:
    return model.apply(
        {"params": of_network(params), **state.model_state},
        image,
        train=True,
        method=method,
        rngs={"dropout": key},
        mutable=list(state.model_state),
    )
