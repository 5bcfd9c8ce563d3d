"""MedNeXt: the original's numbers, names and draws; sizes, types and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from tests.models import originals
from ukbob_jax import weights
from ukbob_jax.models import architecture
from ukbob_jax.models.mednext.network import MedNeXt
from ukbob_jax.models.mednext.torch_names import TORCH

TAGS = ("mednext_s", "mednext_b5", "mednext_grn")
SMALL = MedNeXt(
    1, 3, n_channels=4, exp_r=2, kernel_size=3, do_res=True, do_res_up_down=True, block_counts=(1,) * 9
)
FLAT = SMALL.clone(dim="2d", grn=True, deep_supervision=2)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def build(config):
    return bob.networks.build("mednext", config["in_channels"], config["num_classes"], **config["model"])


@pytest.fixture(scope="module")
def original(reference):
    return functools.cache(lambda tag: originals.Original(reference, tag, build))


@functools.cache
def params(model, seed=0):
    return jax.jit(model.init)(jax.random.key(seed), jnp.zeros(architecture.of(model).input_shape(model)))[
        "params"
    ]


@pytest.mark.reference
@pytest.mark.parametrize("tag", TAGS)
def test_names_and_numbers_of_parameters_are_the_originals(original, tag):
    originals.check_names(original(tag))
    found = TORCH.infer(original(tag).state_dict)
    model = original(tag).model.clone(
        kernel_size=None,
        **{f"{part}_kernel_size": original(tag).model.kernel_size for part in ("enc", "dec")},
    )
    assert architecture.find("mednext").build({**found, "do_res": True}) == model.clone(exp_r=model.expansion)


@pytest.mark.reference
@pytest.mark.parametrize("tag", [*(pytest.param(tag, marks=pytest.mark.slow) for tag in TAGS[:2]), TAGS[2]])
def test_logits_are_the_originals(original, tag):
    originals.check_logits(original(tag))


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("tag", TAGS)
def test_gradients_are_the_originals(original, tag):
    originals.check_gradients(original(tag))


def test_a_new_network_is_drawn_as_pytorch_draws_it():
    found = weights.to_torch(params(SMALL.clone(n_channels=8, grn=True)), SMALL.clone(n_channels=8, grn=True))
    for name, fan in {
        "stem": 1, "enc_block_0.0.conv1": 27, "enc_block_1.0.conv2": 16, "up_0.conv1": 27, "up_0.res_conv": 8,
        "up_0.conv3": 32, "down_0.res_conv": 8, "out_0.conv_out": 3, "out_4.conv_out": 3,
    }.items():  # fmt: skip
        both = [np.abs(found[f"{name}.{leaf}"]) for leaf in ("weight", "bias")]
        largest = max(array.max() for array in both)
        assert 0.8 < largest * fan**0.5 <= 1, (name, largest * fan**0.5)
        assert both[1].max() > 0
    assert not found["down_1.grn_gamma"].any() and "down_0.grn_gamma" not in found
    assert found["dummy_tensor"] == 1


def test_other_sizes_are_padded_and_cropped():
    x = np.random.default_rng(0).normal(size=(1, 20, 9, 1)).astype(np.float32)
    run = jax.jit(functools.partial(FLAT.apply, {"params": params(FLAT)}))
    logits = run(x)
    assert logits.shape == (1, 20, 9, 3) and logits.dtype == jnp.float32
    whole = run(np.pad(x, ((0, 0), (0, 12), (0, 7), (0, 0))))
    np.testing.assert_array_equal(logits, whole[:, :20, :9])


def test_training_gives_what_deep_gives_and_strides_say():
    x = np.ones((2, 32, 16, 1), np.float32)
    variables = {"params": params(FLAT)}
    deep = FLAT.apply(variables, x, deep=True)
    jax.tree.map(np.testing.assert_array_equal, deep, FLAT.apply(variables, x, train=True))
    assert [one.shape for one in deep] == [(2, 32 // s, 16 // s, 3) for s in (1, 2, 4)]
    assert architecture.of(FLAT).strides(FLAT) == ((1, 1), (2, 2), (4, 4))
    plain = FLAT.clone(deep_supervision=0)
    fewer = {name: leaf for name, leaf in variables["params"].items() if name not in ("out_1", "out_2")}
    for found in (
        plain.apply({"params": fewer}, x, train=True),
        *plain.apply({"params": fewer}, x, deep=True),
    ):
        np.testing.assert_array_equal(found, deep[0])
    maps = FLAT.apply(variables, x, method="hidden")
    assert [one.shape for one in maps] == [(2, 32 >> i, 16 >> i, 4 << i) for i in range(5)]


def test_narrow_arithmetic_gives_wide_logits_and_remat_the_same_gradient():
    x, variables = (
        np.ones((1, 16, 16, 1), np.float32) * np.arange(16).reshape(16, 1),
        {"params": params(FLAT)},
    )
    wide, narrow = FLAT.apply(variables, x), FLAT.clone(dtype=jnp.bfloat16).apply(variables, x)
    assert narrow.dtype == jnp.float32 and 0 < np.abs(narrow - wide).max() < 0.1

    def gradient(model):
        return jax.jit(jax.grad(lambda p: jnp.square(model.apply({"params": p}, x)).sum()))(params(FLAT))

    kept, again = gradient(FLAT), gradient(FLAT.clone(remat=True))
    assert str(jax.make_jaxpr(lambda p: gradient(FLAT))(0)) != str(
        jax.make_jaxpr(lambda p: gradient(FLAT.clone(remat=True)))(0)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), kept, again)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))


def test_the_originals_other_fields_are_read_or_refused():
    make = functools.partial(bob.networks.build, "mednext", 1, 2)
    assert make(checkpoint_style="outside_block").remat and not make(checkpoint_style=None).remat
    assert (
        make(deep_supervision=True).deep_supervision == 4
        and make(deep_supervision=False).deep_supervision == 0
    )
    assert make(kernel_size=None, enc_kernel_size=3, dec_kernel_size=5).kernel_sizes == (3, 5)
    for fields, message in {
        (("checkpoint_style", "inside"),): "checkpoint_style 'inside' must be None or 'outside_block'",
        (("kernel_size", 4),): "odd numbers of voxels",
        (("exp_r", (2, 3)),): "one number or 9",
        (("block_counts", (1,) * 5),): "must be 9 numbers",
        (("dim", "1d"),): "one of 2d, 3d",
        (("norm_type", "batch"),): "one of group, layer",
        (("deep_supervision", 5),): "0 to 4",
        (("strides", 2),): "unknown field 'strides'",
    }.items():
        with pytest.raises(ValueError, match=f"^MedNeXt: .*{message}"):
            jax.eval_shape(make(**dict(fields)).init, jax.random.key(0), jnp.zeros((1, 16, 16, 16, 1)))
    with pytest.raises(ValueError, match=r"input is \(1, 16, 16, 1\), expected \(b, x, y, z, 1\)"):
        jax.eval_shape(SMALL.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))


def test_a_block_without_residuals_and_with_layer_norm_has_no_more_parameters():
    model = SMALL.clone(
        do_res=False, do_res_up_down=False, norm_type="layer", block_counts=(0, 1, 0, 0, 2, 0, 0, 1, 0)
    )
    found = weights.to_torch(params(model), model)
    assert not any("res_conv" in name for name in found) and "enc_block_0.0.conv1.weight" not in found
    assert {"bottleneck.1.norm.weight", "dec_block_1.0.conv1.weight"} <= found.keys()
    assert TORCH.infer(found)["block_counts"] == model.block_counts
    jax.tree.map(np.testing.assert_array_equal, weights.from_torch(found, model), params(model))
