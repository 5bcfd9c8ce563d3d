"""Networks by name, and from a recipe's section."""

import pytest

import ukbob_jax as bob
from tests.tiny_network import Tiny
from ukbob_jax import networks
from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.models.swin_unetr.network import SwinUNETR

NAME = "tests.tiny_network"


def test_networks_are_built_by_name():
    assert bob.networks.build(NAME, 1, 7, width=3) == Tiny(1, 7, 3)
    assert bob.networks.build("swin_unetr", 1, 7, depths=[1, 1, 1, 1]) == SwinUNETR(1, 7, depths=(1, 1, 1, 1))
    assert networks.names() == ["swin_unetr"]
    with pytest.raises(ConfigError, match=r"Tiny: unknown field 'depths'; its fields: in_channels, .*width"):
        networks.build(NAME, 1, 7, depths=(1,))
    with pytest.raises(ConfigError, match="Tiny: field 'in_channels' is missing"):
        architecture.find(NAME).build({"out_channels": 2})
