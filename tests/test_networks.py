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
    assert set(networks.names()) == {
        *("mednext", "plain_unet", "primus", "resenc_unet", "stunet", "swin_unetr")
    }
    with pytest.raises(ConfigError, match=r"Tiny: unknown field 'depths'; its fields: in_channels, .*width"):
        networks.build(NAME, 1, 7, depths=(1,))
    assert bob.networks.build("PrimusV2", 1, 2, embed_dim=12, patch_embed_size=(8, 8, 8)).version == 2
    assert bob.networks.build("STUNet", 1, 2, enable_deep_supervision=True) == bob.networks.build(
        "stunet", 1, 2, deep_supervision=True
    )
    with pytest.raises(ConfigError, match="Tiny: field 'in_channels' is missing"):
        architecture.find(NAME).build({"out_channels": 2})


def test_a_section_names_its_network_and_every_field():
    assert networks.from_section({"name": NAME, "in_channels": 1, "out_channels": 2}) == Tiny(1, 2)
    section = {"name": NAME, **architecture.find(NAME).fields(Tiny(1, 2, width=6, deep_supervision=1))}
    before = dict(section)
    assert networks.from_section(section) == Tiny(1, 2, width=6, deep_supervision=1)
    assert section == before


@pytest.mark.parametrize(
    "section, message",
    [
        ({"in_channels": 1}, "config.model: network '' is unknown: there are .*swin_unetr"),
        ({"name": "unet"}, "config.model: network 'unet' is unknown"),
        ({"name": NAME, "in_channels": 1}, "config.model: .*Tiny: field 'out_channels' is missing"),
        ({"name": NAME, "in_channels": 1, "out_channels": 2, "depth": 3}, "Tiny: unknown field 'depth'"),
    ],
)
def test_sections_that_make_no_network_are_refused_by_the_section(section, message):
    with pytest.raises(ConfigError, match=f"^.*{message}"):
        networks.from_section(section)
