"""Weights from and to MONAI."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ukbob_jax.models import monai_names
from ukbob_jax.models.swin_unetr import SwinUNETR


def from_monai(state_dict: Mapping[str, Any], model: SwinUNETR) -> dict[str, Any]:
    """The parameters of `model` with the values of a MONAI state_dict (name to array)."""
    tree: dict[str, Any] = {}
    for tensor in monai_names.tensors(model):
        value = np.asarray(state_dict[tensor.name], np.float32).transpose(tensor.axes)
        at = tree
        for key in tensor.path[:-1]:
            at = at.setdefault(key, {})
        at[tensor.path[-1]] = jnp.asarray(value)
    return tree
