"""Networks small enough to differentiate by hand."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest
from flax import linen as nn


class Pointwise(nn.Module):
    """A voxel-wise classifier with a norm whose scale and bias can be adapted: b x y z c -> b x y z k."""

    classes: int = 3
    on_trace: Callable[[], Any] | None = None

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        if self.on_trace is not None:
            self.on_trace()
        x = nn.Dense(4, name="stem")(x)
        x = nn.LayerNorm(name="norm1")(x)
        return nn.Dense(self.classes, name="out")(jnp.tanh(x))


class Convolutional(nn.Module):
    """Two convolutions with a batch norm between, whose windows see their surroundings: b x y z c -> b x y z k."""

    classes: int = 3

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        x = nn.Conv(4, (3, 3, 3), name="stem")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm1")(x)
        return nn.Conv(self.classes, (1, 1, 1), name="out")(nn.relu(x))


@pytest.fixture(scope="session")
def networks():
    return Pointwise, Convolutional
