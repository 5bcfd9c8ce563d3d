"""The network of a training: what its checkpoints say of it, and how it starts from weights."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import common
from tests.tiny_network import Tiny
from ukbob_jax import settings, weights
from ukbob_jax.errors import ConfigError, MismatchError
from ukbob_jax.jobs.train import network
from ukbob_jax.models.card import ModelCard
from ukbob_jax.training import optimizer
from ukbob_jax.training import state as states
from ukbob_jax.weights import tensors

MODEL, DEEP = Tiny(2, 3, width=5), Tiny(2, 3, width=5, deep_supervision=1)
DATA = SimpleNamespace(
    names={0: "background", 1: "liver", 2: "spleen"}, regions=None, contrasts=("fat", "water"), label="auto",
    store=SimpleNamespace(path="store"), common_spacing=lambda: (2.0, 2.0, 3.0), fingerprint=lambda: "0123",
    extremes=lambda: {"spacing_mm": [[2.0, 2.0, 3.0]] * 2}, heavy_tails=lambda: {"fat": 2},
    appearance=lambda: {"modality": ["MR"]},
)  # fmt: skip


def params(model, seed):
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, dict(tensors.variables(model)["params"]))


def start(model, ema=False):
    return states.start(params(model, 1), {}, optimizer.build(learning_rate=0.1, steps=9), ema)


def recipe(**changes):
    return settings.with_fields(common.base().copy_and_resolve_references(), changes)


@pytest.fixture
def file(tmp_path):
    card = ModelCard.of(MODEL, labels=DATA.names)
    weights.save(tmp_path / "w.safetensors", params(MODEL, 0), MODEL, card=card)
    return str(tmp_path / "w.safetensors")


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_description_is_a_card_that_builds_the_network_again():
    meta = network.describe(MODEL, recipe(**{"data.crop": (8, 8, 8), "data.flagged": "drop"}), DATA)
    card = ModelCard.from_json(meta["card"], "here")
    assert card.build() == MODEL and card.labels == DATA.names and card.contrasts == ("fat", "water")
    assert (card.spacing_mm, card.window, card.normalize) == ((2.0, 2.0, 3.0), (8, 8, 8), "zscore")
    assert card.provenance == {
        "store": "store",
        "label": "auto",
        "flagged": "drop",
        "flagged_by": "solf",
        "data": "0123",
    }
    assert card.training == {"spacing_mm": [[2.0, 2.0, 3.0]] * 2, "modality": ["MR"]}


def test_contrasts_ruled_by_outliers_are_told(capsys):
    meta = network.describe(MODEL, recipe(**{"data.normalize": "auto"}), DATA)
    assert ModelCard.from_json(meta["card"], "here").training["heavy_tailed"] == {"fat": 2}
    assert (
        "train: outliers rule mean and std: fat of 2 subjects; normalised by percentiles"
        in capsys.readouterr().err
    )


def test_all_weights_are_taken_and_listed(file, tmp_path, capsys):
    loaded = network.load(recipe(init=file), DATA, MODEL, str(tmp_path), start(MODEL, ema=True))
    same(loaded.params, params(MODEL, 0))
    same(loaded.ema, loaded.params)
    assert int(loaded.step) == 0 and "10 tensors taken, 0 start afresh" in capsys.readouterr().err
    assert (tmp_path / "init.txt").read_text().startswith(f"{file}\nmatched: 10\n")


def test_new_parts_and_auxiliary_heads_keep_their_fresh_values(file, tmp_path):
    fresh = start(DEEP)
    loaded = network.load(recipe(init=file, init_new=("head",)), DATA, DEEP, str(tmp_path), fresh)
    for name, array in loaded.params.items():
        same(array, (fresh.params if name in ("head", "aux_0") else params(MODEL, 0))[name])
    assert loaded.ema == {}


def test_parts_that_are_unknown_and_weights_that_do_not_fit_are_refused(file, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.init_new: 'tail' is unknown; choose from head, stem"):
        network.load(recipe(init=file, init_new=("tail",)), DATA, MODEL, str(tmp_path), start(MODEL))
    wide = Tiny(2, 3, width=6)
    with pytest.raises(MismatchError, match="width 5, not 6"):
        network.load(recipe(init=file), DATA, wide, str(tmp_path), start(wide))
    assert not (tmp_path / "init.txt").exists()
