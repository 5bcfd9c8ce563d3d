"""`tools/convert_weights.py`: every kind of target gives back the numbers of the source."""

import re

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.weights.monai_files import FIELDS, MODEL, same, state_dict, write
from tools import convert_weights
from ukbob_jax import networks, weights
from ukbob_jax.models import architecture
from ukbob_jax.models.card import PRETRAINING, ModelCard
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.regions import Regions
from ukbob_jax.training.state import PRETEXT

pytestmark = pytest.mark.usefixtures("quick_compilation")


def convert(*arguments):
    return convert_weights.main([str(argument) for argument in arguments])


def test_a_round_trip_through_every_format_is_bitwise(tmp_path, capsys):
    model = SwinUNETR(2, 3, **FIELDS, norm="batch", downsample="merging_legacy")
    theirs = state_dict(model)
    source = write(tmp_path / "theirs.pt", {f"module.{name}": array for name, array in theirs.items()})
    places = [source, tmp_path / "a.safetensors", tmp_path / "folder", tmp_path / "b.pt"]
    assert convert(source, places[1], "--downsample", "merging_legacy") == 0
    assert "matched: " in capsys.readouterr().out
    assert convert(places[1], places[2]) == 0 and convert(places[2], places[3]) == 0
    for place in places[1:]:
        loaded = weights.read(place, model)
        same(weights.to_monai(loaded.params, model, loaded.model_state), theirs)
        assert loaded.card.build() == model
        assert loaded.card.provenance["converted_from"] == "theirs.pt"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "--downsample"),
        (["--downsample", "merging", "--norm", "batch"], 3, "missing"),
        (["--downsample", "merging", "--out_channels", 5], 3, "out.conv.conv.bias"),
    ],
)
def test_what_cannot_be_known_or_does_not_fit_is_said_in_one_line(tmp_path, capsys, arguments, code, words):
    source = write(tmp_path / "theirs.pt", state_dict())
    assert convert(source, tmp_path / "out.pt", *arguments) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


def test_facts_follow_unless_a_new_head_or_stem_makes_them_wrong(tmp_path):
    source, labels = tmp_path / "ours.pt", {0: "background"}
    facts = {
        "labels": labels,
        "regions": Regions(("WT",), ((1, 2),), (2,), labels),
        "contrasts": ("t1", "t2"),
        "window": (32, 32, 32),
    }
    card = ModelCard.of(MODEL, **facts)
    weights.save(source, weights.from_monai(state_dict(), MODEL), MODEL, card=card)
    assert convert(source, tmp_path / "same.pt") == 0
    assert convert(source, tmp_path / "head.pt", "--head", "new", "--out_channels", 5) == 0
    assert convert(source, tmp_path / "stem.pt", "--stem", "average", "--in_channels", 1) == 0
    kept = {
        name: {
            fact
            for fact in facts
            if getattr(weights.contents(tmp_path / f"{name}.pt").card, fact) == facts[fact]
        }
        for name in ("same", "head", "stem")
    }
    assert kept == {
        "same": set(facts), "head": {"contrasts", "window"}, "stem": {"labels", "regions", "window"}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [("[1]", 2, "expected a JSON object"), ("{", 3, "not readable"), ('{"colour": 1}', 2, "colour")],
)
def test_facts_that_are_none_are_refused_in_one_line(tmp_path, capsys, content, code, words):
    source, facts = write(tmp_path / "theirs.pt", state_dict()), tmp_path / "facts.json"
    facts.write_text(content)
    assert convert(source, tmp_path / "out.pt", "--downsample", "merging", "--facts", facts) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out.pt").exists()


def test_an_encoder_becomes_a_start_for_other_classes(tmp_path):
    theirs = {name: array for name, array in state_dict().items() if name.startswith("swinViT.")}
    source = write(tmp_path / "encoder.pt", theirs)
    options = (
        "--downsample",
        "merging",
        "--out_channels",
        5,
        "--norm",
        "layer",
        "--new",
        "decoder,head",
    )
    assert convert(source, tmp_path / "start.safetensors", *options) == 0
    params = weights.load(tmp_path / "start.safetensors", SwinUNETR(2, 5, **FIELDS, norm="layer"))
    kernel = params["swin"]["patch_embed"]["kernel"]
    np.testing.assert_array_equal(
        kernel, weights.from_monai(state_dict(), MODEL)["swin"]["patch_embed"]["kernel"]
    )


@pytest.mark.parametrize("encoder_alone", [False, True])
@pytest.mark.parametrize("name", ["swin_unetr", "resenc_unet"])
def test_a_pretraining_becomes_a_file_of_what_it_trained_under_the_originals_names(
    tmp_path, capsys, name, encoder_alone
):
    """MONAI's names, or those of nnssl's ResidualEncoderUNet with all its aliases; no fresh last layer or decoder."""
    small = {
        "n_stages": 2,
        "strides": (1, 2),
        "kernel_sizes": 3,
        "features_per_stage": (4, 8),
        "n_blocks_per_stage": (1, 1),
        "n_conv_per_stage_decoder": 1,
    }
    model = MODEL if name == "swin_unetr" else networks.build(name, 2, 2, **small)
    said = architecture.of(model)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct(said.input_shape(model), "float32")
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes["params"])
    whole = weights.to_torch(params, model)
    encoder = re.compile(said.parts["encoder"])
    kept = traverse_util.unflatten_dict(
        {path: leaf for path, leaf in traverse_util.flatten_dict(params).items()
         if not encoder_alone or encoder.search("/".join(path))}
    )  # fmt: skip
    kept[PRETEXT] = {"token": np.ones(3, np.float32)}
    card = ModelCard.of(model, task=PRETRAINING, window=(32, 32, 32))
    convert_weights.save_folder(tmp_path / "run", weights.Loaded(kept, {}, None, None), card)
    assert convert(tmp_path / "run", tmp_path / "out.pt", "--which", "latest") == 0
    assert "pretext.token" in capsys.readouterr().out
    file = weights.files.read(tmp_path / "out.pt")
    same(file.tensors, {key: value for key, value in whole.items() if key in file.tensors})
    assert (file.tensors.keys() == whole.keys()) != encoder_alone
    loaded = weights.read(tmp_path / "out.pt", model)  # as from the folder
    assert loaded.card.task == PRETRAINING and set(loaded.report.matched) <= file.tensors.keys()
    if not encoder_alone:
        assert (
            len(loaded.report.new)
            == len(weights.read(tmp_path / "run", model, which="latest").report.new)
            > 0
        )
