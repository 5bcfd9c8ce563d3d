"""Types of the arithmetic."""

from typing import Any

import jax.numpy as jnp


def at_least_float32(dtype: Any) -> Any:
    """The type for statistics, softmax, sums and logits: float32, or float64 where the arithmetic is float64."""
    return jnp.promote_types(dtype, jnp.float32)
