import json

import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError, MismatchError
from ukbob_jax.labelling import names


def folder(place, labels):
    dataset = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    (place / "dataset.json").write_text(json.dumps(dataset))
    return {number: name for name, number in labels.items()}


def test_names_decide_in_any_spelling(tmp_path):
    found = names.to_taxonomy(
        folder(tmp_path, {"background": 0, "Kidney Left": 1, "ivd": 2, "pelvis-right": 3}), tmp_path
    )
    assert found.tolist() == [0, *(anatomy.IDS[name] for name in ("kidney_left", "IVD", "hip_right"))]


def test_our_own_ids_may_be_named_by_numbers(tmp_path):
    labels = {"background": 0, **{str(i): i for i in anatomy.NAMES if i}}
    np.testing.assert_array_equal(names.to_taxonomy(folder(tmp_path, labels), tmp_path), np.arange(256))


def test_a_label_set_maps_ids_and_must_be_the_models(tmp_path):
    labels = {name: i for i, name in anatomy.DATASETS["totalsegmentator_mr"].items()}
    said = folder(tmp_path, labels)
    with pytest.raises(ConfigError, match=r"all are those of totalsegmentator_mr: set labeller\.labels"):
        names.to_taxonomy(said, tmp_path)
    found = names.to_taxonomy(said, tmp_path, "totalsegmentator_mr")
    assert found[labels["liver"]] == anatomy.IDS["liver"] and found[labels["brain"]] == 0
    with pytest.raises(MismatchError, match="label 5 is 'liver', but 'esophagus'"):
        names.to_taxonomy(said, tmp_path, "btcv")


def test_a_table_says_what_the_names_do_not(tmp_path):
    said = folder(tmp_path, {"background": 0, "liver": 1, "tumour": 2})
    with pytest.raises(ConfigError, match=r"label 2, 'tumour', is not a structure.*labeller\.label_table"):
        names.to_taxonomy(said, tmp_path)
    table = tmp_path / "table.csv"
    table.write_text("1, 5\n2, 255\n")
    assert names.to_taxonomy(said, tmp_path, table=str(table)).tolist() == [0, 5, 255]
    for text, words in (
        ("1, 5", "no row for label 2, 'tumour'"),
        ("1, 5\n2, 91", "takes 2 to 91, which is no id"),
    ):
        table.write_text(text)
        with pytest.raises(ConfigError, match=words):
            names.to_taxonomy(said, tmp_path, table=str(table))
    with pytest.raises(ConfigError, match="are both given"):
        names.to_taxonomy(said, tmp_path, "btcv", str(table))


def test_names_of_a_label_set_may_have_other_ids():
    given = {0: "background", 3: "liver", 200: "ribs"}
    found = names.by_label_set(given, "vibesegmentator_ct")
    assert (
        found[3] == anatomy.IDS["liver"]
        and found[200] == anatomy.IDS["bone_other"]
        and found[4] == anatomy.IGNORE
    )
