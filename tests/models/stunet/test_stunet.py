"""STU-Net: the original's numbers and names, its four sizes."""

import jax
import numpy as np
import pytest

import ukbob_jax as bob
from tests.models import originals, unets
from ukbob_jax import weights
from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.models.stunet.network import repeat
from ukbob_jax.weights import tensors

SMALL = bob.networks.build(
    "stunet", 2, 3, dims=(4, 6, 8), depth=(1, 2, 1), pool_op_kernel_sizes=((1, 2, 2), 1), conv_kernel_sizes=(3, 3, (1, 3, 3))
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.reference
@pytest.mark.parametrize("tag", ["stunet_s", "stunet_d2"])
def test_names_and_numbers_of_parameters_are_the_originals(reference, tag):
    found = unets.original(reference, tag)
    originals.check_names(found)
    unets.check_copies(found)
    unets.check_infer(found)


@pytest.mark.reference
@pytest.mark.parametrize("tag", ["stunet_d2", pytest.param("stunet_s", marks=pytest.mark.slow)])
def test_logits_are_the_originals(reference, tag):
    originals.check_logits(unets.original(reference, tag), 1e-4)


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("tag", ["stunet_s", "stunet_d2"])
def test_gradients_are_the_originals(reference, tag):
    originals.check_gradients(unets.original(reference, tag))


@pytest.mark.slow
def test_training_narrow_types_and_remat():
    unets.check_forms(SMALL)


@pytest.mark.parametrize(
    "size, millions",
    [
        ("S", 14.5),
        ("B", 58.1),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in (("L", 440), ("H", 1456))),
    ],
)
def test_sizes_have_the_papers_parameters(size, millions):
    model = bob.networks.build("stunet", 1, 1, size=size)
    shapes = jax.tree.leaves(tensors.variables(model)["params"])
    assert abs(sum(leaf.size for leaf in shapes) / 1e6 / millions - 1) < 0.01
    assert (
        model.size == size and bob.networks.build("stunet", 1, 1, dims=model.dims, depth=model.depth) == model
    )


def test_fields_that_make_no_network_are_refused_by_name():
    def build(**fields):
        return bob.networks.build("stunet", 1, 1, **fields)

    assert SMALL.size == ""  # other dims than those of a size
    with pytest.raises(ConfigError, match="STUNet: size 'XL' must be one of S, B, L, H"):
        build(size="XL")
    with pytest.raises(ConfigError, match="STUNet: depth has 5 entries, expected 6"):
        build(depth=(1,) * 5)
    with pytest.raises(ConfigError, match="STUNet: pool_op_kernel_sizes has 6 entries, expected 5"):
        build(pool_op_kernel_sizes=(2,) * 6)
    with pytest.raises(ConfigError, match="STUNet: dims 1 must be a whole number of stages from 2 on"):
        build(dims=(16,), depth=1)


def test_weights_fit_other_strides():
    """Upsampling has none of its own."""
    named = weights.to_torch(unets.variables(SMALL)["params"], SMALL)
    other = SMALL.clone(pool_op_kernel_sizes=2)
    weights.from_torch(named, other)
    assert architecture.of(other).multiple(other) == (4, 4, 4)
    assert architecture.of(SMALL).multiple(SMALL) == (1, 2, 2)


def test_voxels_are_repeated_in_place():
    x = np.arange(2 * 3 * 2, dtype=np.float32).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(repeat(x, (1, 2)), x.repeat(2, 2))
    np.testing.assert_array_equal(repeat(x, (3, 1)), x.repeat(3, 1))
