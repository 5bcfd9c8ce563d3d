"""What travels with weights: cards of today, and descriptions from before there were cards."""

import dataclasses
import json
import subprocess
import sys

import pytest

from tests.tiny_network import Tiny
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.models.card import ModelCard, facts_from_json
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.regions import brats

CARD = ModelCard.of(
    Tiny(2, 4, width=3),
    labels={0: "background", 1: "liver", 3: "spleen"},
    contrasts=("water", "fat"),
    spacing_mm=(1.5, 1.5, 2.0),
    normalize="zscore",
    window=(32, 32, 16),
    training={"spacing_mm": [[1.5, 1.5, 2.0], [1.5, 1.5, 2.5]]},
    provenance={"store": "s"},
)
# As the loop wrote it until checkpoints had cards: beside the loop's own facts, the window of its metrics among them.
OLD = {
    "model": {
        "in_channels": 1, "out_channels": 4, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [3, 6, 12, 24],
        "window_size": [4, 4, 4], "norm": "instance_affine", "downsample": "merging", "use_v2": False, "qkv_bias": True,
        "normalize": True, "patch_norm": False, "dropout_path_rate": 0.0, "dtype": "float32", "remat": False,
        "pad": True, "drop_rate": 0.0, "attn_drop_rate": 0.0, "mlp_ratio": 4.0, "norm_groups": 4, "norm_affine": True,
        "deep_supervision": 0,
    },
    "architecture": 1, "axes": "x y z c, RAS+", "labels": {"0": "background", "1": "liver", "2": "unused", "3": "spleen"},
    "regions": None, "spacing_mm": None, "normalize": "zscore", "contrasts": ["0"], "roi": [32, 32, 64],
    "provenance": {"store": "s", "label": "auto", "flagged": "ignore", "data": "0123"},
    "recipe": {"seed": 0}, "window": [{"loss": 1.0}], "owes_evaluation": False, "step": 200, "arrays": {},
}  # fmt: skip


@pytest.mark.parametrize("regions", [None, brats("brats")])
def test_a_card_comes_back_from_json(regions):
    labels = regions.labels if regions else CARD.labels
    card = dataclasses.replace(CARD, regions=regions, labels=labels, task="segmentation")
    value = json.loads(json.dumps(card.to_json()))
    for held in (value, {"card": value, "step": 3, "window": [{"loss": 1.0}], "sha256": "0"}):
        assert ModelCard.from_json(held, "f") == card
    assert card.build() == Tiny(2, 4, width=3)
    bare = ModelCard.of(Tiny(2, 4))
    assert ModelCard.from_json(bare.to_json(), "f") == bare and "labels" not in bare.to_json()


def test_descriptions_from_before_cards_are_read():
    card = ModelCard.from_json(OLD, "checkpoints")
    model = SwinUNETR(1, 4, feature_size=12, depths=(1,) * 4, window_size=(4, 4, 4), norm="instance_affine")
    assert card.architecture == "swin_unetr" and card.build() == model
    assert card.build("bfloat16").dtype.name == "bfloat16"
    assert card.window == (32, 32, 64) and card.contrasts == ("0",) and card.spacing_mm is None
    assert card.provenance == OLD["provenance"] and card.task == "segmentation" and card.regions is None
    regions = brats("decathlon")
    old = {
        **OLD,
        "labels": {str(i): name for i, name in regions.labels.items()},
        "regions": regions.to_json(),
    }
    assert ModelCard.from_json(old, "f").regions == regions
    del old["regions"], old["roi"], old["labels"], old["axes"]  # a file of weights with few facts
    assert ModelCard.from_json({**old, "window": []}, "f").labels == {}


def test_views_of_classes_that_exclude_each_other():
    card = dataclasses.replace(CARD, labels={0: "background", 1: "liver", 2: "unused", 4: "spleen"})
    assert card.num_classes == 5 and card.excluded == (2, 3) and card.activation == "softmax"
    assert card.used == {0: "background", 1: "liver", 4: "spleen"} and card.channels == card.labels
    assert card.region_labels == () and card.regions is None


def test_views_of_regions():
    regions = brats("brats")
    card = dataclasses.replace(CARD, labels=regions.labels, regions=regions)
    assert card.num_classes == 3 and card.excluded == () and card.activation == "sigmoid"
    assert card.channels == {0: "WT", 1: "TC", 2: "ET"} and card.used == regions.labels
    assert card.region_labels == (2, 1, 3) and card.regions == regions


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"fields": None}, FileError, "does not say which model it is for"),
        ({"architecture": 7}, FileError, "does not say which model it is for"),
        ({"labels": {"one": "liver"}}, FileError, "cannot be used: invalid literal"),
        ({"labels": ["liver"]}, FileError, "cannot be used"),
        ({"regions": {"names": ["WT"]}}, FileError, "cannot be used"),
        ({"task": "dream"}, FileError, "task 'dream' is unknown"),
        ({"version": 2}, MismatchError, "made for version 2, not 1"),
        ({"axes": "z y x"}, MismatchError, "made for axes 'z y x', not 'x y z c, RAS"),
    ],
)
def test_damaged_and_foreign_cards_are_refused_by_file(change, error, words):
    with pytest.raises(error, match=f"^w.pt: .*{words}") as caught:
        ModelCard.from_json({**CARD.to_json(), **change}, "w.pt")
    assert "\n" not in str(caught.value)
    with pytest.raises(MismatchError, match="version 2, not 1"):
        ModelCard.from_json({**OLD, "architecture": 2}, "w.pt")


def test_unknown_facts_are_refused():
    with pytest.raises(ConfigError, match="unknown colour; known are labels, regions"):
        facts_from_json({"colour": "red"})


@pytest.mark.parametrize(
    "name", ["antigravity.now", "tests.tiny_network_of_a_stranger", "os.path", "this", "../x"]
)
def test_a_card_never_chooses_what_is_imported(name):
    card = ModelCard.from_json({**CARD.to_json(), "architecture": name}, "w.pt")
    before = set(sys.modules)
    with pytest.raises(ConfigError, match=f"network '{name}' is") as caught:
        card.build()
    assert set(sys.modules) == before and "\n" not in str(caught.value)
    if name not in sys.modules and "." in name and "/" not in name:
        assert f"import {name} first" in str(caught.value)


def test_a_network_of_ones_own_is_built_only_where_it_is_imported():
    code = f"""
from ukbob_jax.models.card import ModelCard
card = ModelCard.from_json({CARD.to_json()!r}, "w.pt")
try:
    card.build()
except ValueError as error:
    print(error)
import tests.tiny_network
print(card.build().width)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    refused, width = done.stdout.splitlines()
    assert (
        "import tests.tiny_network first in Python, or give --config.model.name=tests.tiny_network" in refused
    )
    assert width == "3"
