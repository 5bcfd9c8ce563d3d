"""`ukbob card`: what a store holds, and what of people is not told."""

import json

import numpy as np
import pytest

from ukbob_jax import cli
from ukbob_jax.store import card, origins
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.case import Description

SITES = ("north",) * 7 + ("south",) * 2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Nine scans of eight people; two label sets, one of them of three subjects."""
    path = tmp_path_factory.mktemp("card") / "cohort"
    label = np.zeros((8, 6, 4), np.uint8)
    label[1:3], label[4:6] = 1, 5
    with StoreWriter(path) as writer:
        for number, site in enumerate(SITES):
            labels = {"auto": label} | (
                {"manual": np.where(label == 5, 5, 0).astype(np.uint8)} if number < 3 else {}
            )
            writer.write(
                f"secret{number}", np.full((8, 6, 4, 2), number, np.int16), np.diag([2.0, 2, 3 + number, 1]), labels,
                source=str(number), split="train" if number < 6 else "", contrasts=("water", "fat"),
                person="twin" if number > 6 else "", annotated=[5] if number == 0 else None,
                attributes={"sex": "FM"[number % 2], "age_years": 41.5 + 3 * number, "site": site},
                quality={"doubts": ["identity affine: no spacing"]} if number == 4 else {},
                description=Description(modality="MR", label_names={"auto": {1: "spleen", 5: "liver"}}),
            )  # fmt: skip
    return path


def test_counts_are_those_of_the_rows(store):
    found = card.describe(Store.open(store).rows.values())
    assert (found["subjects"], found["persons"]) == (9, 8)
    assert found["splits"] == {"train": 6, "none": 3} and found["contrasts"] == {"water": 9, "fat": 9}
    assert found["modalities"] == {"MR": 9} and found["units"] == {"not said": 9}
    assert found["spacing_mm"] == {"least": [2, 2, 3], "median": [2, 2, 7], "most": [2, 2, 11]}
    assert found["extent_mm"]["most"] == [16, 12, 44] and found["shape"]["least"] == [8, 6, 4]
    auto, manual = (found["label_sets"][name] for name in ("auto", "manual"))
    assert auto == {"subjects": 9, "partial": 1, "classes": {"1 spleen": 9, "5 liver": 9}}
    assert manual == {"subjects": 3, "partial": 1, "classes": {"5": 3}}
    assert found["remarks"] == {"identity affine": 1}


def test_small_groups_and_names_of_people_are_not_told(store, capsys):
    people = card.describe(Store.open(store).rows.values())["people"]
    assert people["sex"] == {"groups": {}, "unknown": 0, "in_small_groups": 8}  # four of each
    assert people["site"] == {"groups": {"north": 7}, "unknown": 0, "in_small_groups": 1}
    assert people["age"]["groups"] == {} and people["age"]["in_small_groups"] == 8
    assert cli.main(["card", str(store)]) == 0
    text = capsys.readouterr().out
    assert "secret" not in text and "south" not in text and "twin" not in text and "41.5" not in text


def test_the_card_is_markdown_and_json_with_terms_and_issues(store, tmp_path, capsys):
    words = ["card", str(store), "--dataset", "totalsegmentator_ct", "btcv", "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "card.json").read_text()) == found and list(found["datasets"]) == [
        "btcv", "totalsegmentator_ct",
    ]  # fmt: skip
    text = (tmp_path / "out" / "card.md").read_text()
    assert text.startswith("# cohort\n\n9 subjects of 8 persons. Splits: train (6), none (3).")
    assert "| spacing mm | 2 2 3 | 2 2 7 | 2 2 11 |" in text
    assert (
        "**auto**, 9 subjects; 1 annotated for some classes only. Classes (subjects): 1 spleen (9), 5 liver (9)."
        in text
    )
    assert "**TotalSegmentator, CT**: CC BY 4.0." in text and "- wrong labels: hearts in the abdomen" in text
    assert (
        "**BTCV, Beyond the Cranial Vault**: terms of its Synapse project" in text and "- none known" in text
    )
    assert cli.main(words) == 0 and capsys.readouterr().out == text


def test_what_ingestion_noted_is_on_the_card(store, capsys):
    assert cli.main(["card", str(store)]) == 0
    assert "is not known; name them with `ukbob card STORE --dataset KEY`" in capsys.readouterr().out
    origins.note(str(store), ["amos", "a key of another version"])
    assert cli.main(["card", str(store)]) == 0
    assert "**AMOS22**: CC BY 4.0" in capsys.readouterr().out
    (store / "datasets.json").unlink()


@pytest.mark.parametrize(
    "words, code, message",
    [
        (
            ("{store}", "--dataset", "imagenet"),
            2,
            "--dataset imagenet: unknown; choose from uk_biobank_dixon, ",
        ),
        (("{store}/nowhere",), 3, "nowhere: no such store"),
    ],
)
def test_bad_input_is_told_in_one_line(store, capsys, words, code, message):
    assert cli.main(["card", *(word.format(store=store) for word in words)]) == code
    told = capsys.readouterr().err.strip()
    assert message in told and len(told.splitlines()) == 1
