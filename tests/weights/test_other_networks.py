"""Weights of a network that is not ours, in one file: the same functions, under its own names and axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_network import Tiny
from tests.weights.monai_files import same, write
from ukbob_jax import weights
from ukbob_jax.models.card import ModelCard
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.training import optimizer, state
from ukbob_jax.training.checkpoints import Checkpoints

MODEL = Tiny(2, 3, width=5)


def params(model=MODEL, seed=0):
    shape = (1, 1, 2, 2, model.in_channels)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def test_every_tensor_comes_back_bitwise_under_all_its_names():
    ours = params()
    theirs = weights.to_torch(ours, MODEL)
    assert theirs["backbone.fine.weight"].shape == (5, 2, 3, 3, 3)
    kernel = ours["fine"]["kernel"]  # x y z i o
    np.testing.assert_array_equal(theirs["backbone.fine.weight"], kernel.transpose(4, 3, 2, 1, 0))
    np.testing.assert_array_equal(theirs["fine_again.weight"], theirs["backbone.fine.weight"])
    jax.tree.map(np.testing.assert_array_equal, weights.from_torch(theirs, MODEL), ours)
    del theirs["backbone.fine.weight"]  # the copy stands for it
    jax.tree.map(np.testing.assert_array_equal, weights.from_torch(theirs, MODEL), ours)


def test_copies_that_differ_are_refused():
    theirs = weights.to_torch(params(), MODEL)
    theirs["fine_again.weight"] = theirs["fine_again.weight"] + 1
    with pytest.raises(ValueError, match=r"fine_again.weight \(differs from backbone.fine.weight"):
        weights.from_torch(theirs, MODEL)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_with_a_card_load_into_the_same_network_only(tmp_path, suffix):
    path, ours = tmp_path / f"w{suffix}", params()
    weights.save(path, ours, MODEL)  # names that begin with "backbone." are the network's own
    loaded = weights.read(path, MODEL)
    assert loaded.card == ModelCard.of(MODEL)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, ours)
    with pytest.raises(ValueError, match=r"made for width 5, not 4"):
        weights.load(path, Tiny(2, 3))
    with pytest.raises(ValueError, match=r"network 'tests.tiny_network', not 'swin_unetr'"):
        weights.load(path, SwinUNETR(2, 3, feature_size=4, num_heads=(1, 2, 2, 4), depths=(1,) * 4))
    with pytest.raises(ValueError, match="labels"):
        weights.save(path, ours, MODEL, card=ModelCard.of(MODEL, labels={0: "a"}))
        weights.load(path, MODEL, labels={0: "b"})


def test_names_of_other_trainers_are_known(tmp_path):
    theirs = weights.to_torch(params(), MODEL)
    named = {f"module.{name.replace('backbone.fine.', 'stem.')}": array for name, array in theirs.items()}
    path = write(tmp_path / "a.pt", named)
    same(weights.to_torch(weights.load(path, MODEL), MODEL), theirs)


def test_parts_start_afresh_by_their_names(tmp_path):
    theirs = weights.to_torch(params(), MODEL)
    path = write(tmp_path / "a.pt", {name: array for name, array in theirs.items() if "seg" not in name})
    init = params(seed=1)
    loaded = weights.read(path, MODEL, new=("head",), init=init)
    assert set(loaded.report.new) == {"seg.weight", "seg.bias"}
    np.testing.assert_array_equal(loaded.params["head"]["kernel"], init["head"]["kernel"])
    with pytest.raises(
        ValueError, match=r"network 'tests.tiny_network' has no part 'decoder'; there are: stem, enc"
    ):
        weights.read(path, MODEL, new=("decoder",))
    drawn = weights.read(path, MODEL, new="^seg", seed=3).params["head"]["kernel"]
    assert np.abs(drawn).max() > 0


def test_an_averaged_stem_answers_equal_channels_as_before(tmp_path):
    one, ours = Tiny(1, 3, width=5), params(Tiny(1, 3, width=5))
    path = write(tmp_path / "a.pt", weights.to_torch(ours, one))
    loaded = weights.read(path, MODEL, stem="average")
    assert loaded.report.averaged == ("backbone.fine.weight",)
    kernel = loaded.params["fine"]["kernel"]
    np.testing.assert_allclose(kernel.sum(3), ours["fine"]["kernel"].sum(3), rtol=1e-6)
    np.testing.assert_array_equal(kernel[..., 0, :], kernel[..., 1, :])


def test_our_own_checkpoints_load(tmp_path):
    ours = params()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(
        state.start(ours, {}, optimizer.build(learning_rate=1e-3, steps=1)),
        {"card": ModelCard.of(MODEL).to_json()},
    )
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, weights.load(tmp_path, MODEL), ours)
    found = weights.contents(tmp_path)
    same(found.tensors, weights.to_torch(ours, MODEL))


def test_a_file_that_does_not_say_its_network_needs_one(tmp_path):
    path = write(tmp_path / "a.pt", weights.to_torch(params(), MODEL))
    with pytest.raises(ValueError, match="does not say which network it is for"):
        weights.contents(path)
