"""Primus: the originals' numbers, names and draws; positions, types and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ukbob_jax as bob
from tests.models import originals
from ukbob_jax import weights
from ukbob_jax.models import architecture
from ukbob_jax.models.primus import eva, patches
from ukbob_jax.models.primus.network import VERSIONS, Primus
from ukbob_jax.models.primus.patches import ResidualEmbed
from ukbob_jax.models.primus.torch_names import TORCH

TAGS = ("primus", "primus_reg", "primus_v2", "primus_v3")
SMALL = Primus(2, 3, 24, (4, 8, 2), (8, 8, 6), eva_depth=2, eva_numheads=2, num_register_tokens=1)
V3 = Primus(
    1, 3, 12, (4, 4, 4), (8, 4, 8), version=3, eva_depth=1, eva_numheads=2, depth_per_level=(1, 2), ch_per_level=(2, 4, 4),
    init_values=0.1,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("quick_compilation")


def build(config):
    options = {"version": VERSIONS[config["kind"]], "input_shape": config["spatial"]}
    return bob.networks.build(
        "primus", config["in_channels"], config["num_classes"], **config["model"], **options
    )


def of_arguments(config):
    """From the arguments in the reference alone: neither the size of the input nor the version is among them."""
    return bob.networks.build("primus", config["in_channels"], config["num_classes"], **config["model"])


@pytest.fixture(scope="module")
def original(reference):
    return functools.cache(lambda tag: originals.Original(reference, tag, build))


@functools.cache
def params(model):
    """Other numbers than a fresh network's, which cost no compilation."""
    rng, shape = np.random.default_rng(0), architecture.of(model).input_shape(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]
    return jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(np.float32), shapes)


def image(model, seed=0):
    return (
        np.random.default_rng(seed).normal(size=(1, *model.input_shape, model.in_channels)).astype(np.float32)
    )


@pytest.mark.reference
@pytest.mark.parametrize("tag", TAGS)
def test_names_and_numbers_of_parameters_are_the_originals(original, tag):
    originals.check_names(original(tag))
    model, said = original(tag).model, architecture.find("primus")
    hidden = {name: getattr(model, name) for name in TORCH.hidden}
    found = said.build({**TORCH.infer(original(tag).state_dict), **hidden})
    assert found.clone(drop_path_rate=0.0) == model.clone(drop_path_rate=0.0)


@pytest.mark.reference
@pytest.mark.parametrize("tag", TAGS)
def test_logits_are_the_originals(original, tag):
    originals.check_logits(original(tag))


@pytest.mark.reference
@pytest.mark.parametrize("tag", TAGS)
def test_size_and_version_may_be_left_to_the_weights(original, reference, tag):
    found, whole = originals.Original(reference, tag, of_arguments), original(tag)
    kind = bob.networks.build(whole.config["kind"], 1, 2, **whole.config["model"])
    assert kind.version == whole.model.version and kind.input_shape is found.model.input_shape is None
    originals.check_names(found)
    ours, wanted = (
        jax.eval_shape(one.model.apply, {"params": whole.params}, whole.image) for one in (found, whole)
    )
    assert ours == wanted


@pytest.mark.reference
@pytest.mark.parametrize(
    "tag", [pytest.param(tag, marks=[pytest.mark.slow] * (tag[-2:] in ("v2", "v3"))) for tag in TAGS]
)
def test_gradients_are_the_originals(original, tag):
    originals.check_gradients(original(tag))


def test_a_new_network_is_drawn_as_the_original_draws_it():
    model = Primus(
        1, 2, 96, (4, 4, 4), (8, 8, 8), eva_depth=3, eva_numheads=4, init_values=0.3, num_register_tokens=4
    )
    fresh = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    found = weights.to_torch(fresh, model)
    he = (2 / (1 + 0.01**2)) ** 0.5
    for name, std in {
        "down_projection.proj.weight": he / 64**0.5,
        "up_projection.decode.0.0.weight": he / (8 * 16) ** 0.5,
        "eva.pos_embed": 0.02,
        "eva.blocks.1.attn.q_proj.weight": 0.02,
        "eva.blocks.1.attn.proj.weight": 0.02 / 4**0.5,
        "eva.blocks.2.mlp.fc2.weight": 0.02 / 6**0.5,
        "register_tokens": 1e-6,
    }.items():
        assert found[name].std() == pytest.approx(std, rel=0.15), name
    assert (found["eva.blocks.2.gamma_1"] == np.float32(0.3)).all()
    assert not any(found[name].any() for name in found if name.endswith(".bias"))
    stem = jax.jit(ResidualEmbed(4, (2, 2, 2), (1, 1), True, 0.01).init)(
        jax.random.key(0), jnp.zeros((1, 4, 4, 4, 1))
    )["params"]
    assert stem["scale_proj_to_tokens_1"].shape == () and stem["scale_proj_to_tokens_1"] == np.float32(1e-5)
    assert (stem["stages_1"]["block_0"]["conv2"]["norm"]["scale"] == 1).all()  # no still start, as ResEnc has


def test_rotations_keep_what_lies_between_two_tokens():
    """Scores depend on the difference of places alone, and tokens in front have none."""
    grid, rng = (3, 4, 5), np.random.default_rng(0)
    q, k = (np.broadcast_to(rng.normal(size=12), (1, 61, 1, 12)).astype(np.float32) for _ in range(2))
    places = eva.of_grid(grid, 12)
    turned = [np.asarray(eva.turned(jnp.asarray(x), places, 1)) for x in (q, k)]
    np.testing.assert_array_equal(turned[0][:, 0], q[:, 0])
    scores = np.einsum("bqhw,bkhw->bqk", turned[0][:, 1:], turned[1][:, 1:]).reshape(*grid, *grid)
    np.testing.assert_allclose(scores[0, 1, 1, 1, 3, 2], scores[1, 0, 2, 2, 2, 3], rtol=1e-5)
    assert abs(scores[0, 0, 0, 1, 0, 0] - scores[0, 0, 0, 0, 1, 0]) > 1e-3


def test_another_size_is_refused_where_tokens_have_positions():
    for fields in ({}, {"use_rot_pos_emb": False}, {"use_abs_pos_embed": False}):
        with pytest.raises(ValueError, match=r"positions are for \(8, 8, 6\).* --config.model.input_shape"):
            jax.eval_shape(SMALL.clone(**fields).init, jax.random.key(0), jnp.zeros((1, 8, 8, 8, 2)))
    free = SMALL.clone(use_rot_pos_emb=False, use_abs_pos_embed=False)
    apply = functools.partial(jax.eval_shape, functools.partial(free.apply, {"params": params(free)}))
    assert apply(np.zeros((1, 4, 16, 2, 2))).shape == (1, 4, 16, 2, 3)
    with pytest.raises(ValueError, match=r"no multiples of the patch \(4, 8, 2\)"):
        apply(np.zeros((1, 6, 8, 2, 2)))
    with pytest.raises(ValueError, match=r"expected \(b, x, y, z, 2\)"):
        apply(np.zeros((1, 4, 8, 2, 1)))
    assert architecture.of(free).multiple(free) == (4, 8, 2)
    assert architecture.of(SMALL).multiple(SMALL) == (8, 8, 6)


def test_without_input_shape_the_weights_say_how_many_tokens_there_are():
    free = SMALL.clone(input_shape=None)
    apply = functools.partial(jax.eval_shape, functools.partial(free.apply, {"params": params(SMALL)}))
    assert apply(image(SMALL)).shape == (1, 8, 8, 6, 3)
    with pytest.raises(ValueError, match=r"input of 2 x 1 x 4 tokens, but its learnt positions are for 6 in"):
        apply(np.zeros((1, 8, 8, 8, 2)))
    shapes = {"eva.pos_embed": (1, 7, 24), "down_projection.stem.blocks.0.conv1.conv.weight": (1,)}
    settled = architecture.of(free).settled(free, shapes)
    assert settled.input_shape == (24, 8, 2) and settled.version == 2
    assert architecture.of(SMALL).settled(SMALL.clone(version=1), shapes) == SMALL.clone(version=1)
    fresh = jax.eval_shape(free.init, jax.random.key(0), jnp.zeros((1, 8, 16, 4, 2)))["params"]
    assert fresh["eva"]["pos_embed"].shape == (1, 9, 24)
    assert weights.to_torch(params(SMALL), free).keys() == weights.to_torch(params(SMALL), SMALL).keys()


def test_training_may_hide_a_share_of_the_tokens():
    """Those that are hidden change nothing and come out as zeros; the others keep their places."""
    block = {"attention": {"heads": 1, "registers": 1}, "hidden": 8}
    calm, hiding = (eva.Eva(1, block, patch_drop_rate=rate) for rate in (0.0, 0.5))
    x, grid = np.random.default_rng(0).normal(size=(2, 9, 6)).astype(np.float32), (2, 2, 2)
    given = calm.init(jax.random.key(0), x, False, grid)
    key = jax.random.key(3)

    def hidden(x):
        return hiding.apply(given, x, True, grid, rngs={"dropout": key})

    found = np.asarray(hidden(x))
    shown = found.any(-1)
    assert found.shape == (2, 8, 6) and (shown.sum(1) == 4).all() and (shown[0] != shown[1]).any()
    other = x.copy()
    other[:, 1:][~shown] += np.arange(6)
    np.testing.assert_array_equal(hidden(other), found)
    moved = x.copy()
    moved[:, 1 + np.argmax(shown[0])] += np.arange(6)
    assert np.abs(np.asarray(hidden(moved)) - found)[0].max() > 1e-3
    np.testing.assert_array_equal(hiding.apply(given, x, False, grid), calm.apply(given, x, False, grid))
    shuffled = eva.Eva(1, block, patch_drop_rate=1e-17)  # which keeps all, in random order
    whole = shuffled.apply(given, x, True, grid, rngs={"dropout": key})
    np.testing.assert_allclose(whole, calm.apply(given, x, False, grid), atol=2e-6)


def test_rotations_are_rounded_once():
    sin, cos = eva.rotations((1, 1, 12), 72)
    bands = np.float32(1) / np.float32([10000 ** float(np.float32(i) / np.float32(12)) for i in range(12)])
    angles = np.float64(np.float32(11) / np.float32(12) * np.float32(12) * bands)
    np.testing.assert_array_equal(sin[11, 24:], np.sin(angles).astype(np.float32))
    np.testing.assert_array_equal(cos[11, 24:], np.cos(angles).astype(np.float32))
    assert not sin[:, :24].any() and (cos[:, :24] == 1).all()


def test_the_list_of_logits_is_one_and_features_end_with_the_tokens():
    def every(x):
        run = functools.partial(V3.apply, {"params": params(V3)}, x)
        return run(), run(deep=True), run(method="hidden")

    logits, [deep], maps = jax.jit(every)(image(V3))
    assert logits.shape == (1, 8, 4, 8, 3) and logits.dtype == jnp.float32
    np.testing.assert_array_equal(deep, logits)
    assert [one.shape[1:] for one in maps] == [(8, 4, 8, 2), (4, 2, 4, 4), (2, 1, 2, 12)]


def test_only_training_drops_and_remat_changes_no_number():
    model = SMALL.clone(drop_path_rate=0.5, proj_drop_rate=0.2, attn_drop_rate=0.3)
    variants = SMALL, model, model.clone(remat=True), SMALL.clone(dtype=jnp.bfloat16)

    def every(x, key):
        variables = {"params": params(SMALL)}
        calm = [one.apply(variables, x) for one in variants]
        return calm, model.apply(variables, x, train=True, rngs={"dropout": key})

    (calm, *same, narrow), dropped = jax.jit(every)(image(SMALL), jax.random.key(1))
    for found in same:
        np.testing.assert_array_equal(found, calm)
    assert np.abs(dropped - calm).max() > 1e-3 * np.abs(calm).max()
    assert architecture.of(model).without_dropout(model) == SMALL
    assert narrow.dtype == jnp.float32 and 0 < np.abs(narrow - calm).max() < 0.1 * np.abs(calm).max()


@pytest.mark.parametrize("model", [SMALL.clone(qkv_bias=False, use_abs_pos_embed=False), V3], ids=["1", "3"])
def test_weights_come_back_under_all_their_names(model):
    found = weights.to_torch(params(model), model)
    assert found["mask_token"].shape == (1, 1, model.embed_dim) and not found["mask_token"].any()
    jax.tree.map(np.testing.assert_array_equal, weights.from_torch(found, model), params(model))
    again = {name: array for name, array in found.items() if ".conv." not in name and name != "mask_token"}
    jax.tree.map(np.testing.assert_array_equal, weights.from_torch(again, model), params(model))
    with pytest.raises(ValueError, match="mask_token"):
        weights.from_torch({**found, "mask_token": found["mask_token"] + 1}, model)


@pytest.mark.parametrize(
    "patch, steps",
    [
        ((8, 8, 8), [(2, 2, 2)] * 3),
        ((4, 8, 1), [(1, 2, 1), (2, 2, 1), (2, 2, 1)]),
        ((2, 1, 1), [(2, 1, 1)]),
    ],
)
def test_the_decoder_doubles_shorter_axes_last(patch, steps):
    assert list(patches.doublings(patch)) == steps


def test_the_originals_fields_are_read_or_refused():
    make = functools.partial(bob.networks.build, "primus", 1, 2)
    sizes = {"embed_dim": 24, "patch_embed_size": (8, 8, 8), "input_shape": (8, 8, 8), "eva_numheads": 2}
    third = make(**sizes, kind="PrimusV3")
    assert (third.version, third.drop_path_rate, third.init_values, third.scale_attn_inner) == (
        3,
        0.2,
        0.1,
        True,
    )
    assert make(**sizes, version=3, init_values=None).init_values is None
    assert make(**sizes, add_skips=False).version == 3 and make(**sizes, decoder_act="torch.nn.GELU") == make(
        **sizes
    )
    for fields, message in (
        ({"decoder_act": "ReLU"}, "'decoder_act' of the original is not built here, only 'GELU'"),
        ({"rope_kwargs": {"temperature": 1}}, "'rope_kwargs' of the original"),
        ({"kind": "PrimusV4"}, "one of Primus, PrimusV2, PrimusV3"),
        ({"kind": "PrimusV2", "version": 3}, "as version says"),
        ({"version": 4}, "must be 1, 2 or 3"),
        ({"patch_embed_size": (6, 6, 6)}, "powers of two"),
        ({"input_shape": (8, 8, 12)}, "multiples of the patch"),
        ({"eva_numheads": 5}, "must divide embed_dim 24"),
        ({"eva_numheads": 6}, "no multiple of 6, for use_rot_pos_emb"),
        ({"version": 2, "patch_embed_size": (4, 4, 4)}, "must be 8 each: version 2 halves"),
        ({"version": 3, "ch_per_level": (1, 2)}, "one number more than depth_per_level"),
    ):
        with pytest.raises(ValueError, match=f"^Primus: .*{message}"):
            model = make(**{**sizes, **fields})
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))
    with pytest.raises(ValueError, match="field 'patch_embed_size' is missing"):
        make(embed_dim=24, input_shape=(8, 8, 8))
