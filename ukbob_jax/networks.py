"""Networks by name: `bob.networks.build("swin_unetr", 1, 73, feature_size=24)`."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import names

__all__ = ["build", "from_section", "names"]


def build(name: str, in_channels: int, out_channels: int, **fields: Any) -> nn.Module:
    """The network `name` with these fields.

    Args:
        name: one of `names()`, or the name of the PyTorch class that one of them is made after ("PlainConvUNet",
            "PrimusV2"), or the module path of a network of your own (`models/architecture.py`).
        in_channels: contrasts of the input, c.
        out_channels: classes, k.
        **fields: the network's own, or arguments of that class; those left out have our defaults.
    Returns:
        A Flax module: `.init(key, x)` gives its variables, `.apply(variables, x)` logits b x y z k of x b x y z c.
    Raises:
        ConfigError: no such network, or no such field; names those there are.
    """
    name, own = architecture.of_class(name) or (name, {})
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    return architecture.find(name).build({**channels, **own, **fields})


def from_section(section: Mapping[str, Any]) -> nn.Module:
    """The network of a recipe's section `config.model`: its `name`, and its fields.

    Raises:
        ConfigError: no such network, or no such field; names those there are.
    """
    fields = dict(section)
    try:
        return architecture.find(fields.pop("name", "")).build(fields)
    except ConfigError as error:
        raise ConfigError(f"config.model: {error}") from error
