import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights.monai_files import FIELDS, MODEL, same, state_dict, write
from ukbob_jax import weights
from ukbob_jax.models.card import ModelCard
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.weights import tensors

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.reference
def test_a_whole_monai_checkpoint_comes_back_bitwise(reference):
    theirs = dict(np.load(reference / "swin_unetr" / "swin_A_state_dict.npz"))
    model = SwinUNETR(1, 5, 12)
    params = weights.from_monai(theirs, model)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    same(weights.to_monai(params, model), theirs)


@pytest.mark.parametrize(
    "fields",
    [
        *({"use_v2": True, "patch_norm": True}, {"norm": "batch"}, {"norm": "group", "qkv_bias": False}),
        *({"norm": "instance_affine"}, {"norm": "layer"}, {"norm": "batch", "norm_affine": False}),
    ],
)
def test_every_kind_of_model_comes_back_bitwise(fields):
    model = SwinUNETR(2, 3, **FIELDS, **fields)
    theirs = state_dict(model)
    params, state = weights.from_monai(theirs, model), weights.state_from_torch(theirs, model)
    same(weights.to_monai(params, model, state), theirs)
    expected = tensors.variables(model)
    assert jax.tree.map(jnp.shape, {"params": params, **state}) == jax.tree.map(jnp.shape, dict(expected))


def test_gradient_trees_keep_their_type():
    tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights.from_monai(state_dict(), MODEL))
    assert weights.to_monai(tree, MODEL)["out.conv.conv.bias"].dtype == np.float64


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_saved_weights_come_back_bitwise_with_their_description(tmp_path, suffix):
    model = SwinUNETR(2, 3, **FIELDS, norm="batch")
    theirs = state_dict(model)
    params, state = weights.from_monai(theirs, model), weights.state_from_torch(theirs, model)
    facts = {
        "labels": {0: "background", 1: "liver"},
        "spacing_mm": (1.5, 1.5, 3.0),
        "provenance": {"seed": 3},
    }
    card = ModelCard.of(model, **facts)
    path = tmp_path / f"weights{suffix}"
    weights.save(path, params, model, model_state=state, card=card)
    first = path.read_bytes()
    loaded = weights.read(path, model, labels=facts["labels"])
    same(weights.to_monai(loaded.params, model, loaded.model_state), theirs)
    assert loaded.report.complete and len(loaded.report.matched) == len(tensors.expected(model))
    assert loaded.card == card and loaded.card.build() == model
    weights.save(path, params, model, model_state=state, card=card)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"downsample": "merging_legacy"}, "downsample 'merging', not 'merging_legacy'"),
        ({"normalize": False}, "normalize True, not False"),
        ({"norm": "layer", "norm_affine": False}, "norm 'instance', not 'layer'"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused_though_its_shapes_fit(tmp_path, fields, words):
    path = tmp_path / "weights.safetensors"
    weights.save(
        path,
        weights.from_monai(state_dict(), MODEL),
        MODEL,
        card=ModelCard.of(MODEL, labels={0: "background"}),
    )
    with pytest.raises(ValueError, match=words):
        weights.load(path, SwinUNETR(2, 3, **FIELDS, **fields))
    with pytest.raises(ValueError, match="labels"):
        weights.load(path, MODEL, labels={0: "air"})
    weights.load(
        path, SwinUNETR(2, 3, **{**FIELDS, "window_size": (3, 3, 3)}, dtype=jnp.bfloat16, remat=True)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_of_a_diverged_training_are_refused(tmp_path, value):
    path = write(tmp_path / "a.pt", state_dict() | {"out.conv.conv.bias": np.full(3, value, np.float32)})
    with pytest.raises(ValueError, match=r"1 tensors hold NaN or infinity, such as out\.conv\.conv\.bias"):
        weights.load(path, MODEL)


def test_new_parts_are_initialised_from_the_seed(tmp_path):
    theirs = {name: array for name, array in state_dict().items() if not name.startswith("out.")}
    path = write(tmp_path / "a.pt", theirs)
    a, b, c = (weights.load(path, MODEL, new="^out", seed=seed)["head"]["kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3
