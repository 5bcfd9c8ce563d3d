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
from ukbob_jax.models.mednext.blocks import Block, Pointwise
from ukbob_jax.models.mednext.network import MedNeXt
from ukbob_jax.models.mednext.torch_names import TORCH

TAGS = ("mednext_s", "mednext_b5", "mednext_grn")
SMALL = MedNeXt(
    1, 3, n_channels=4, exp_r=2, kernel_size=3, do_res=True, do_res_up_down=True, block_counts=(1,) * 9
)
FLAT = SMALL.clone(dim="2d", n_channels=2, exp_r=1, grn=True, deep_supervision=2, block_counts=(0,) * 9)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def build(config):
    return bob.networks.build("mednext", config["in_channels"], config["num_classes"], **config["model"])


@pytest.fixture(scope="module")
def original(reference):
    return functools.cache(lambda tag: originals.Original(reference, tag, build))


@functools.cache
def params(model):
    """Other numbers than a fresh network's, which cost no compilation."""
    rng, shape = np.random.default_rng(0), architecture.of(model).input_shape(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]
    return jax.tree.map(lambda leaf: rng.normal(0.3, 0.5, leaf.shape).astype(np.float32), shapes)


def image(*size):
    return np.random.default_rng(1).normal(size=(1, *size, 1)).astype(np.float32)


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
    blocks = {
        "keep": Block(16, 2, 3, grn=True), "up": Block(8, 2, 3, "up", grn=True), "head": Pointwise(3, transposed=True),
    }  # fmt: skip
    x = jnp.zeros((1, 2, 2, 2, 16))
    found = jax.jit(lambda key: {name: block.init(key, x)["params"] for name, block in blocks.items()})(
        jax.random.key(0)
    )
    found["head"] = {"conv": found["head"]}
    for block, layer, fan in (
        ("keep", "conv1", 27), ("keep", "conv2", 16), ("keep", "conv3", 32), ("up", "conv1", 27), ("up", "conv3", 32),
        ("up", "res_conv", 8), ("head", "conv", 3),
    ):  # fmt: skip
        both = [np.abs(found[block][layer][leaf]) * fan**0.5 for leaf in ("kernel", "bias")]
        assert 0.8 < both[0].max() <= 1 and 0.2 < both[1].max() <= 1, (block, layer)
    assert not found["keep"]["grn_gamma"].any() and not found["up"]["grn_beta"].any()
    shapes = jax.eval_shape(FLAT.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))["params"]
    assert "grn_gamma" in shapes["down_1"] and "grn_gamma" not in shapes["down_0"]


def test_other_sizes_are_padded_and_cropped():
    x = image(20, 9)
    whole = np.pad(x, ((0, 0), (0, 12), (0, 7), (0, 0)))
    run = functools.partial(FLAT.apply, {"params": params(FLAT)})
    logits, of_whole = jax.jit(lambda x, whole: (run(x), run(whole)))(x, whole)
    assert logits.shape == (1, 20, 9, 3) and logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, of_whole[:, :20, :9])


def test_training_gives_what_deep_gives_and_strides_say():
    variables, plain = {"params": params(FLAT)}, FLAT.clone(deep_supervision=0)
    fewer = {"params": {name: leaf for name, leaf in params(FLAT).items() if name not in ("out_1", "out_2")}}

    def every(x):
        several = FLAT.apply(variables, x, deep=True), FLAT.apply(variables, x, train=True)
        single = (
            plain.apply(fewer, x, train=True),
            *plain.apply(fewer, x, deep=True),
            FLAT.apply(variables, x),
        )
        return several, single, FLAT.apply(variables, x, method="hidden")

    (deep, trained), single, maps = jax.jit(every)(image(32, 16))
    jax.tree.map(np.testing.assert_array_equal, deep, trained)
    assert [one.shape for one in deep] == [(1, 32 // s, 16 // s, 3) for s in (1, 2, 4)]
    assert architecture.of(FLAT).strides(FLAT) == ((1, 1), (2, 2), (4, 4))
    for found in single:
        np.testing.assert_array_equal(found, deep[0])
    assert [one.shape for one in maps] == [(1, 32 >> i, 16 >> i, 2 << i) for i in range(5)]


def test_narrow_arithmetic_gives_wide_logits_and_remat_the_same_gradient():
    x, narrow = image(16, 16), FLAT.clone(dtype=jnp.bfloat16)

    def loss(params, model):
        return jnp.square(model.apply({"params": params}, x)).mean()

    def every(p):
        logits = [model.apply({"params": p}, x) for model in (FLAT, narrow)]
        return logits, [jax.grad(loss)(p, model) for model in (FLAT, FLAT.clone(remat=True))]

    (wide, short), (kept, again) = jax.jit(every)(params(FLAT))
    assert short.dtype == jnp.float32 and 0 < np.abs(short - wide).max() < 0.1 * np.abs(wide).max()
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(kept))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * largest), kept, again)


def test_the_originals_other_fields_are_read_or_refused():
    make = functools.partial(bob.networks.build, "mednext", 1, 2)
    assert make(checkpoint_style="outside_block").remat and not make(checkpoint_style=None).remat
    assert (
        make(deep_supervision=True).deep_supervision == 4
        and make(deep_supervision=False).deep_supervision == 0
    )
    assert make(kernel_size=None, enc_kernel_size=3, dec_kernel_size=5).kernel_sizes == (3, 5)
    for name, value, message in (
        ("checkpoint_style", "inside", "checkpoint_style 'inside' must be None or 'outside_block'"),
        ("kernel_size", 4, "odd numbers of voxels"),
        ("exp_r", (2, 3), "one number or 9"),
        ("block_counts", (1,) * 5, "must be 9 numbers"),
        ("dim", "1d", "one of 2d, 3d"),
        ("norm_type", "batch", "one of group, layer"),
        ("deep_supervision", 5, "0 to 4"),
        ("strides", 2, "unknown field 'strides'"),
    ):
        with pytest.raises(ValueError, match=f"^MedNeXt: .*{message}"):
            model = make(**{name: value})
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 16, 1)))
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
