"""The names other trainers give a network's tensors."""

import re

import numpy as np
import pytest

from tests.weights.monai_files import MODEL, same, state_dict, write
from ukbob_jax import weights
from ukbob_jax.errors import MismatchError
from ukbob_jax.models.architecture import TorchNames
from ukbob_jax.models.swin_unetr import ARCHITECTURE
from ukbob_jax.weights import aliases

ENCODER_ONLY = ("decoder", "head")


@pytest.mark.parametrize(
    "prefix", ["", "module.", "net.", "model.", "backbone.", "module.backbone.", "_orig_mod."]
)
def test_trainers_prefixes_are_taken_off(tmp_path, prefix):
    theirs = state_dict()
    path = write(tmp_path / "a.pt", {prefix + name: array for name, array in theirs.items()})
    same(weights.to_monai(weights.load(path, MODEL), MODEL), theirs)


@pytest.mark.parametrize("prefix", ["student.backbone.", "SwinUNETR.", "_forward_module.module."])
def test_the_one_network_of_a_file_may_stand_under_any_name(tmp_path, prefix):
    theirs = state_dict()
    tensors = {prefix + name.replace("swinViT.", "swin_vit."): array for name, array in theirs.items()}
    same(weights.to_monai(weights.load(write(tmp_path / "a.pt", tensors), MODEL), MODEL), theirs)
    two = ["a.patch_embed.proj.weight", "b.patch_embed.proj.weight"]
    assert not aliases.wrapping(two, ARCHITECTURE.torch)


def test_of_two_networks_one_is_dropped_by_name(tmp_path):
    theirs, other = state_dict(), state_dict(seed=1)
    tensors = {f"student.{name}": array for name, array in theirs.items()}
    tensors |= {f"teacher.{name}": array for name, array in other.items()} | {"teacher.head": np.zeros(2)}
    path = write(tmp_path / "a.pt", tensors)
    with pytest.raises(ValueError, match="drop="):
        weights.load(path, MODEL)
    loaded = weights.read(path, MODEL, drop=r"^teacher\.")
    same(weights.to_monai(loaded.params, MODEL), theirs)
    assert len(loaded.report.left_out) == len(other) + 1


@pytest.mark.parametrize(
    "layout", ["", "module.", "swinViT.", "module.swin_vit.", "encoder.", "encoder.deeper."]
)
def test_self_supervised_encoders_load_when_the_rest_may_be_new(tmp_path, layout):
    theirs, tensors = state_dict(), {}
    for name, array in theirs.items():
        if name.startswith("swinViT."):
            tail = name.removeprefix("swinViT.").replace("mlp.linear", "mlp.fc")
            if layout == "encoder.deeper.":
                tail = tail.replace(".0.blocks.", ".0.0.blocks.").replace(
                    ".0.downsample.", ".0.0.downsample."
                )
            tensors[layout.replace("deeper.", "") + tail] = array
    heads = [
        "module.rotation_head.weight",
        "module.contrastive_head.bias",
        "module.convTrans3d.weight",
        "student.layer1.0.weight",
        "encoder.norm.bias",
    ]
    path = write(tmp_path / "ssl.pt", tensors | {name: np.zeros(2, np.float32) for name in heads})
    with pytest.raises(ValueError, match=r"missing: .*decoder1"):
        weights.load(path, MODEL)
    loaded = weights.read(path, MODEL, new=ENCODER_ONLY, init=weights.from_monai(state_dict(seed=1), MODEL))
    assert set(loaded.report.left_out) == set(heads)
    result, other = weights.to_monai(loaded.params, MODEL), state_dict(seed=1)
    same(result, {name: (theirs if name.startswith("swinViT.") else other)[name] for name in theirs})


def test_two_tensors_of_one_name_are_refused(tmp_path):
    path = write(
        tmp_path / "a.pt",
        {"module.out.conv.conv.bias": np.zeros(3, np.float32), "out.conv.conv.bias": np.zeros(3, np.float32)},
    )
    with pytest.raises(ValueError, match=r"both out\.conv\.conv\.bias"):
        weights.load(path, MODEL)


NAMES = TorchNames(
    aliases=((r"^stem\.", "first."), (r"\.fc(\d)\.", r".linear\1.")),
    pretext=r"^rotation",
    first=r"(.*?)first\.weight",
)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("first.weight", "first.weight"),
        ("module.net.stem.weight", "first.weight"),
        ("block.fc2.bias", "block.linear2.bias"),
        ("modulelike.weight", "modulelike.weight"),  # no wrapper: the whole word counts
        ("backbone.kept.weight", "backbone.kept.weight"),
    ],
)
def test_names_lose_their_wrappers_unless_they_are_the_networks_own(name, expected):
    assert aliases.canonical(name, NAMES, own=("backbone.kept.weight",)) == expected


def test_what_stands_before_the_one_network_is_found():
    assert aliases.wrapping(["student.first.weight", "student.other"], NAMES) == "student."
    assert aliases.wrapping(["first.weight"], NAMES) == ""
    assert aliases.wrapping(["a.first.weight", "b.first.weight"], NAMES) == ""
    assert aliases.wrapping(["student.first.weight"], TorchNames()) == ""


def test_renaming_keeps_every_array_once_and_lists_what_it_leaves_out():
    given = {
        name: np.full(1, i)
        for i, name in enumerate(("m.stem.fc1.a", "m.first.weight", "m.rotation", "ema.b"))
    }
    renamed, left_out = aliases.rename(given, NAMES, "w.pt", drop=re.compile(r"^ema\."))
    assert {name: int(array[0]) for name, array in renamed.items()} == {
        "first.linear1.a": 0,
        "first.weight": 1,
    }
    assert set(left_out) == {"m.rotation", "ema.b"}
    two = {"module.stem.b": np.zeros(1), "first.b": np.ones(1)}
    with pytest.raises(MismatchError, match=r"^w\.pt: module\.stem\.b and first\.b are both first\.b"):
        aliases.rename(two, NAMES, "w.pt")
