"""ResidualEncoderUNet: the original's numbers, names and draws; both of its blocks."""

import jax
import numpy as np
import pytest

import ukbob_jax as bob
from tests.models import originals, unets
from ukbob_jax import weights
from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.models.residual import average

TAGS = ("resenc4", pytest.param("resenc6", marks=pytest.mark.slow))
FIELDS = {
    "n_stages": 3, "features_per_stage": (4, 6, 6), "kernel_sizes": ((1, 3, 3), 3, 3), "strides": (1, (1, 2, 2), 2),
    "n_blocks_per_stage": (1, 2, 1),
}  # fmt: skip
BASIC = bob.networks.build("resenc_unet", 2, 3, **FIELDS)
NARROW = bob.networks.build(
    "resenc_unet", 2, 3, **FIELDS, block="BottleneckD", bottleneck_channels=(2, 3, 4), stem_channels=5
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.reference
@pytest.mark.parametrize("tag", TAGS)
def test_names_and_numbers_of_parameters_are_the_originals(reference, tag):
    found = unets.original(reference, tag)
    originals.check_names(found)
    unets.check_copies(found)
    unets.check_infer(found)


@pytest.mark.reference
@pytest.mark.parametrize("tag", TAGS)
def test_logits_are_the_originals(reference, tag):
    originals.check_logits(unets.original(reference, tag), 1e-4 if tag == "resenc6" else 4e-5)


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("tag", ["resenc4", "resenc6"])
def test_gradients_are_the_originals(reference, tag):
    originals.check_gradients(unets.original(reference, tag))


@pytest.mark.slow
@pytest.mark.parametrize("model", [BASIC, NARROW], ids=["basic", "bottleneck"])
def test_training_narrow_types_and_remat(model):
    unets.check_forms(model)


def test_bottlenecks_have_the_originals_names_and_give_their_fields_back():
    """Of the package's class: the shortcut of the first stage, which has no stride, is `skip.0`."""
    named = weights.to_torch(unets.variables(NARROW)["params"], NARROW)
    shapes = {name.removeprefix("encoder.stages."): array.shape for name, array in named.items()}
    assert shapes["0.blocks.0.conv1.conv.weight"] == (2, 5, 1, 1, 1)
    assert shapes["0.blocks.0.conv2.conv.weight"] == (2, 2, 1, 3, 3)
    assert shapes["0.blocks.0.conv3.all_modules.0.weight"] == (4, 2, 1, 1, 1)
    assert shapes["0.blocks.0.skip.0.conv.weight"] == (4, 5, 1, 1, 1)
    assert shapes["1.blocks.0.skip.1.conv.weight"] == (6, 4, 1, 1, 1)
    assert not any(".skip." in name for name in shapes if name.startswith(("1.blocks.1", "2.blocks")))
    assert not any(name.endswith("skip.1.conv.bias") for name in shapes)
    said = architecture.of(NARROW)
    assert said.build(said.torch.infer(named)) == NARROW
    jax.tree.map(
        np.testing.assert_array_equal,
        weights.from_torch(named, NARROW),
        dict(unets.variables(NARROW)["params"]),
    )


def test_a_new_block_begins_as_its_shortcut():
    """nnU-Net sets the last norm before the sum to 0."""
    for model, last in ((BASIC, "conv2"), (NARROW, "conv3")):
        found = weights.to_torch(unets.variables(model)["params"], model)
        norms = {name: array for name, array in found.items() if ".norm.weight" in name}
        still = {name for name, array in norms.items() if not array.any()}
        assert still == {name for name in norms if ".blocks." in name and f".{last}." in name}


def test_averages_are_of_whole_blocks():
    x = np.arange(2 * 4 * 6 * 2, dtype=np.float32).reshape(2, 4, 6, 2)
    found = average(x, (2, 3))
    assert found.shape == (2, 2, 2, 2)
    np.testing.assert_allclose(found[1, 1, 0], x[1, 2:4, 0:3].mean((0, 1)))


def test_blocks_that_do_not_exist_or_lack_their_width_are_refused():
    with pytest.raises(
        ConfigError, match="ResEncUNet: block 'SEBlock' must be one of BasicBlockD, BottleneckD"
    ):
        BASIC.clone(block="torch.SEBlock")
    with pytest.raises(ConfigError, match="ResEncUNet: block 'BottleneckD' needs bottleneck_channels"):
        BASIC.clone(block="BottleneckD")
    assert NARROW.clone(block="dynamic_network_architectures.building_blocks.residual.BottleneckD") == NARROW
