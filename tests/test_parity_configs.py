"""Random configurations of the parity tool: always the same, JSON values, and such that our networks have them."""

import json

import pytest

from tools import parity_configs
from ukbob_jax import networks
from ukbob_jax.models import architecture


@pytest.mark.parametrize("network", parity_configs.NETWORKS)
def test_every_drawn_configuration_is_a_network_of_ours(network):
    drawn = [parity_configs.drawn(network, number) for number in range(25)]
    assert drawn[3] == parity_configs.drawn(network, 3) != drawn[4]
    for one in drawn:
        assert json.loads(json.dumps(one.arguments)) == one.arguments
        model = networks.build(one.kind, one.channels, one.classes, **one.arguments)
        said = architecture.of(model)
        assert said.name == network and said.build(said.fields(model)) == model
        assert not any(n % m for n, m in zip(one.size, said.multiple(model), strict=True))
