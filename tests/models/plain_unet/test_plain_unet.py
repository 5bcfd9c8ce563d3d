"""PlainConvUNet: the original's numbers, names and draws; sizes, types and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from tests.models import originals, unets
from ukbob_jax import weights
from ukbob_jax.errors import GeometryError, MismatchError
from ukbob_jax.models import architecture

TAGS = ("plain3", "plain6", "plain4", "plain2d")
FLAT = bob.networks.build(
    "plain_unet", 2, 3, n_stages=3, features_per_stage=(4, 6, 8), kernel_sizes=((3, 3), (1, 3), (3, 3)),
    strides=((1, 1), (2, 1), (3, 2)), n_conv_per_stage=(1, 2, 1), n_conv_per_stage_decoder=1,
)  # fmt: skip

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
    originals.check_logits(unets.original(reference, tag))


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("tag", TAGS)
def test_gradients_are_the_originals(reference, tag):
    originals.check_gradients(unets.original(reference, tag))


def test_other_sizes_are_padded_and_cropped():
    unets.check_padding(FLAT)


def test_training_narrow_types_and_remat():
    unets.check_forms(FLAT)


def test_a_new_network_is_drawn_as_nnunet_draws_it():
    model = FLAT.clone(features_per_stage=(32, 48, 64))
    found = weights.to_torch(unets.variables(model)["params"], model)
    unets.check_he(found["encoder.stages.1.0.convs.1.conv.weight"], 48 * 3)
    # PyTorch takes the second axis for the inputs, which in a transposed convolution are the outputs.
    unets.check_he(found["decoder.transpconvs.0.weight"], 48 * 6)
    unets.check_he(found["decoder.seg_layers.0.weight"], 48)
    assert not any(array.any() for name, array in found.items() if name.endswith("bias"))
    assert all((array == 1).all() for name, array in found.items() if name.endswith("norm.weight"))


def test_batch_norm_has_running_statistics_under_every_name():
    model = FLAT.clone(norm="batch", slope=0.0)
    given = unets.variables(model)
    x = np.random.default_rng(0).normal(size=(2, 12, 4, 2)).astype(np.float32)
    logits, state = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(given, x)
    assert logits.shape == (2, 12, 4, 3)
    named = weights.to_torch(given["params"], model, state)
    first, further = "encoder.stages.0.0.convs.0.norm.", "decoder.encoder.stages.0.0.convs.0.all_modules.1."
    for leaf in ("running_mean", "running_var", "num_batches_tracked", "weight"):
        np.testing.assert_array_equal(named[first + leaf], named[further + leaf])
    assert named[first + "num_batches_tracked"] == 1 and named[first + "running_mean"].any()
    again = weights.state_from_torch(named, model)
    jax.tree.map(np.testing.assert_array_equal, again, {"batch_stats": dict(state["batch_stats"])})
    assert architecture.of(model).torch.infer(named)["norm"] == "batch"


def test_relu_is_relu():
    """With the same weights a leaky slope of 0 gives what ReLU gives, and not what the default gives."""
    x = np.random.default_rng(0).normal(size=(1, 6, 2, 2)).astype(np.float32)
    given = unets.variables(FLAT)
    run = jax.jit(lambda v, x, model: model.apply(v, x, method="hidden"), static_argnums=2)
    plain, leaky = run(given, x, FLAT.clone(slope=0.0)), run(given, x, FLAT)
    assert all((one >= 0).all() for one in plain) and any((one < 0).any() for one in leaky)
    np.testing.assert_allclose(plain[0], jnp.maximum(leaky[0], 0), atol=1e-6)


def test_what_does_not_fit_is_named():
    with pytest.raises(
        GeometryError, match=r"PlainUNet: input is \(1, 6, 2, 2, 2\), expected \(b, x, y, 2\)"
    ):
        FLAT.apply({}, jnp.zeros((1, 6, 2, 2, 2)))
    state_dict = weights.to_torch(unets.variables(FLAT)["params"], FLAT)
    state_dict["decoder.encoder.stages.0.0.convs.0.conv.weight"] = np.ones((4, 2, 3, 3), np.float32)
    with pytest.raises(MismatchError, match=r"decoder.encoder.*differs from encoder.stages.0.0.convs.0.conv"):
        weights.from_torch(state_dict, FLAT)
    with pytest.raises(MismatchError, match="not the weights of a U-Net of nnU-Net: no 'encoder"):
        architecture.of(FLAT).torch.infer({"something.weight": np.ones(3)})


def test_a_file_of_a_trainer_is_read_under_any_of_its_names(tmp_path):
    """Wrapped by a trainer, and with each tensor once, under a further name."""
    torch = pytest.importorskip("torch")
    named = weights.to_torch(unets.variables(FLAT)["params"], FLAT)
    copies = architecture.of(FLAT).torch.copies(FLAT)
    firsts = set(copies.values())
    once = {name: named[name] for name in named if name not in firsts and name not in copies}
    once |= {further: named[further] for first, further in {copies[f]: f for f in sorted(copies)}.items()}
    assert len(once) == len(jax.tree.leaves(unets.variables(FLAT)["params"]))
    tensors = {f"module.{name}": torch.tensor(array) for name, array in once.items()}
    torch.save({"network_weights": tensors}, tmp_path / "checkpoint.pth")
    loaded = weights.load(tmp_path / "checkpoint.pth", FLAT)
    jax.tree.map(np.testing.assert_array_equal, dict(loaded), dict(unets.variables(FLAT)["params"]))
