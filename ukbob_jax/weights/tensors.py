"""Which tensor of a PyTorch file each of a network's parameters is, and how its axes move."""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Path, TorchNames

_LEAVES = {
    **{"kernel": "weight", "scale": "weight", "bias": "bias"},
    **{"mean": "running_mean", "var": "running_var", "count": "num_batches_tracked"},
}


class ModelTensor(NamedTuple):
    """One parameter or statistic of the model."""

    path: Path  # in our tree
    name: str  # in PyTorch's state_dict
    shape: tuple[int, ...]  # ours
    axes: tuple[int, ...]  # ours = PyTorch's transposed by these

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Shape in PyTorch's layout."""
        return tuple(self.shape[i] for i in np.argsort(self.axes))


def torch_names(model: nn.Module) -> TorchNames:
    """The names of `model` in PyTorch files; where there is no such network in PyTorch, our own with dots."""
    return architecture.of(model).torch or TorchNames()


def name(path: Path, names: TorchNames) -> str:
    """PyTorch's name of the parameter at `path`."""
    *modules, leaf = path
    found = ".".join([*modules, _LEAVES.get(leaf, leaf)])
    for pattern, replacement in names.rules:
        found = re.sub(pattern, replacement, found)
    return found


def auxiliary(path: Path, names: TorchNames) -> bool:
    """Whether PyTorch files have no place for the parameter at `path`."""
    return re.search(names.auxiliary, "/".join(path)) is not None


@functools.lru_cache(maxsize=16)
def variables(model: nn.Module) -> dict[str, Any]:
    """Shapes of the model's variables, by collection; nothing is computed."""
    x = jax.ShapeDtypeStruct(architecture.of(model).input_shape(model), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), x)


@functools.lru_cache(maxsize=16)
def model_tensors(model: nn.Module, collection: str = "params") -> tuple[ModelTensor, ...]:
    """Every tensor of one collection ("params" or "batch_stats") that PyTorch files have too, in the tree's order."""
    names = torch_names(model)
    leaves = jax.tree_util.tree_leaves_with_path(variables(model).get(collection, {}))
    paths = [(tuple(key.key for key in keys), leaf.shape) for keys, leaf in leaves]
    return tuple(
        ModelTensor(path, name(path, names), shape, names.axes(path, len(shape)))
        for path, shape in paths
        if not auxiliary(path, names)
    )


def settled(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """`model` with the fields filled in that it leaves to its weights, of these shapes by PyTorch's names."""
    said = architecture.said_by(model)
    return said.settled(model, shapes) if said else model


def expected(model: nn.Module) -> dict[str, ModelTensor]:
    """Every parameter and running statistic of `model`, by PyTorch's name."""
    return {tensor.name: tensor for tensor in model_tensors(model) + model_tensors(model, "batch_stats")}
