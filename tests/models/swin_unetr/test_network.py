import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.models.swin_unetr.network import SwinUNETR

TINY = SwinUNETR(1, 2, feature_size=4, num_heads=(1, 2, 2, 4), window_size=2, depths=(2, 1, 1, 1))
# In float32, MONAI is 6e-6 off its own float64; a wrong epsilon shows as 9e-5 or more (reference README).
FLOAT32 = 3e-5


def shapes(model, size=(32, 32, 32)):
    x = jax.ShapeDtypeStruct((1, *size, model.in_channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), x)


@pytest.fixture(scope="module")
def tiny():
    """Variables of TINY, two images, and the compiled network."""
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 32, 1)).astype(np.float32)
    quick = {"xla_backend_optimization_level": 0}  # compiling takes longer than running
    return TINY.init(jax.random.key(0), x), x, jax.jit(TINY.apply, compiler_options=quick)


@pytest.mark.reference
@pytest.mark.parametrize("tag", ["A", *(pytest.param(tag, marks=pytest.mark.slow) for tag in "BCDE")])
def test_logits_and_hidden_maps_equal_monais(case, tag):
    case = case(tag)
    logits, hidden = case.results
    for name, ours in [("output", logits), *((f"hidden{i}", h) for i, h in enumerate(hidden))]:
        theirs = case.expected.get(name, case.expected.get(f"{name}_sub"))
        np.testing.assert_allclose(case.thinned(ours, theirs), theirs, atol=FLOAT32, err_msg=name)
    difference = np.abs(case.thinned(logits, case.expected["output_sub"]) - case.expected["output_sub"])
    assert difference.mean() < 3e-6
    whole = case.formulas.checksum(np.moveaxis(logits, -1, 1))
    for name in ("mean", "std", "min", "max", "l2", "proj"):
        assert whole[name] == pytest.approx(case.facts["output"][name], rel=1e-5, abs=FLOAT32), name


@pytest.mark.reference
@pytest.mark.slow
def test_bfloat16_stays_near_float32(case):
    """Stated error of the bfloat16 policy: 0.075 at most, 0.0064 on average, on logits of standard deviation 0.9."""
    case = case("A")
    model = dataclasses.replace(case.model, dtype=jnp.bfloat16)
    logits = jax.jit(model.apply)({"params": case.params}, case.image)
    assert logits.dtype == jnp.float32
    difference = np.abs(np.asarray(logits) - case.results[0])
    print(f"bfloat16 against float32: max {difference.max():.4f}, mean {difference.mean():.5f}")
    assert 0 < difference.max() < 0.1 and difference.mean() < 0.008


@pytest.mark.parametrize(
    ("inputs", "outputs", "width", "count"),
    [
        *((1, 1, 48, 62_186_659), (1, 14, 48, 62_187_296), (1, 73, 48, 62_190_187)),
        *((4, 3, 48, 62_191_941), (4, 73, 48, 62_195_371), (1, 14, 24, 15_703_304), (1, 14, 12, 4_078_220)),
    ],
)
def test_parameter_counts_are_the_published_ones(inputs, outputs, width, count):
    """`facts.md` 1.5; the first is from a user's log."""
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(SwinUNETR(inputs, outputs, width)))) == count


def test_sizes_that_are_no_multiple_of_32_are_padded_inside(tiny):
    variables, x, apply = tiny
    small = x[:, :20, :32, :9]
    padded = np.zeros_like(x)
    padded[:, :20, :32, :9] = small
    np.testing.assert_array_equal(apply(variables, small), apply(variables, padded)[:, :20, :32, :9])


def test_samples_of_a_batch_do_not_meet(tiny):
    variables, x, apply = tiny
    other = x.copy()
    other[0] += 1
    np.testing.assert_array_equal(apply(variables, other)[1], apply(variables, x)[1])


@pytest.mark.parametrize("shape", [(32, 32, 32, 1), (1, 32, 32, 32, 2), (1, 1, 32, 32, 32)])
def test_a_wrong_rank_or_channel_count_is_refused_with_the_shape(tiny, shape):
    with pytest.raises(ValueError, match=rf"\({', '.join(map(str, shape))}\)"):
        TINY.apply(tiny[0], np.zeros(shape, np.float32))


def test_without_padding_other_sizes_are_refused(tiny):
    with pytest.raises(ValueError, match=r"\(32, 33, 64\).*32"):
        dataclasses.replace(TINY, pad=False).apply(tiny[0], np.zeros((1, 32, 33, 64, 1), np.float32))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_heads": (5, 6, 12, 24)}, "num_heads"),
        ({"depths": (2, 2, 2)}, "depths"),
        ({"norm": "instances"}, "instance_affine"),
        ({"norm": "group", "norm_groups": 5}, "norm_groups"),
        ({"downsample": "legacy"}, "merging_legacy"),
        ({"window_size": (7, 7)}, "window_size"),
    ],
)
def test_impossible_fields_are_refused_by_name(fields, words):
    with pytest.raises(ValueError, match=words):
        shapes(SwinUNETR(1, 2, 12, **fields))


@pytest.mark.parametrize("fields", [{}, {"use_v2": True, "norm": "instance_affine"}, {"norm": "batch"}])
def test_remat_changes_no_parameter_path(fields):
    plain, remat = (shapes(SwinUNETR(1, 2, 12, remat=remat, **fields)) for remat in (False, True))
    assert jax.tree.structure(plain) == jax.tree.structure(remat)


@pytest.mark.slow
def test_remat_changes_no_gradient(tiny):
    variables, x, _ = tiny

    def loss(params, model):
        return jnp.sum(model.apply({"params": params}, x, train=True) ** 2)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain, remat = (gradient(variables["params"], dataclasses.replace(TINY, remat=r)) for r in (False, True))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(1, float(jnp.abs(a).max())))
    assert float(jnp.abs(plain["swin"]["patch_embed"]["kernel"]).max()) > 0


def test_voxels_of_zero_do_not_make_the_first_gradient_long(tiny):
    """Air, and blocks that masked pre-training hides: were their tokens 0, each layer norm would add a factor of 316."""
    variables, x, _ = tiny
    image = jnp.asarray(x[:1]).at[:, 8:].set(0)
    quick = {"xla_backend_optimization_level": 0}
    gradient = jax.jit(
        jax.grad(lambda params: jnp.mean(TINY.apply({"params": params}, image) ** 2)), compiler_options=quick
    )
    squares = jax.tree.map(lambda leaf: jnp.sum(leaf**2), gradient(variables["params"]))
    assert 0.01 < float(jnp.sqrt(sum(jax.tree.leaves(squares)))) < 100


def test_norms_have_the_paths_that_adaptation_selects():
    """ETTA's default selection is `(^|/)[a-z_]*norm[0-9]*/(scale|bias)$`."""
    params = shapes(SwinUNETR(1, 2, 12, norm="group", patch_norm=True))["params"]
    paths = ["/".join(key.key for key in keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]
    scales = {path.rsplit("/", 1)[0] for path in paths if path.endswith("/scale")}
    selected = {
        path.rsplit("/", 1)[0] for path in paths if re.search(r"(^|/)[a-z_]*norm[0-9]*/(scale|bias)$", path)
    }
    assert selected == scales and "swin/patch_norm" in scales and "decoder1/conv_block/norm3" in scales
