"""Who trains and who validates."""

import json
from types import SimpleNamespace

import pytest

from configs import btcv, common
from ukbob_jax import files, splits
from ukbob_jax.errors import ConfigError

SUBJECTS = tuple(f"s{number}" for number in range(11))


def recipe(**values):
    config = common.base()
    config.update(values)
    return config


@pytest.fixture
def store():
    return SimpleNamespace(
        path="store",
        rows={name: SimpleNamespace(owner=name) for name in SUBJECTS},
        split={"train": SUBJECTS, "val": ()}.get,
    )


@pytest.mark.parametrize("number", [2, 5, 11])
def test_folds_cover_everybody_once_and_hardly_differ_in_size(number):
    made = splits.folds(SUBJECTS, number, seed=0)
    assert sorted(name for split in made for name in split["val"]) == sorted(SUBJECTS)
    for split in made:
        assert sorted(split["train"] + split["val"]) == sorted(SUBJECTS)
        assert len(split["val"]) in (11 // number, -(-11 // number))
    assert splits.folds(SUBJECTS, number, seed=0) == made
    assert number == 11 or splits.folds(SUBJECTS, number, seed=1) != made


def test_nnunets_folds_are_those_of_its_own_seed():
    """Who is held out, of six cases in another order."""
    made = splits.nnunet_folds([f"case_{n:02d}" for n in (5, 3, 1, 0, 2, 4)])
    assert [[int(name[-2:]) for name in split["val"]] for split in made] == [[3, 5], [4], [0], [1], [2]]
    for split in made:
        assert sorted(split["train"] + split["val"]) == [f"case_{n:02d}" for n in range(6)]
    with pytest.raises(ConfigError, match="4 subjects, but nnU-Net makes 5 folds"):
        splits.nnunet_folds("abcd")


@pytest.mark.parametrize("number", [5, 13, 100])
def test_nnunets_folds_are_those_of_scikit_learn(number):
    selection = pytest.importorskip("sklearn.model_selection")
    names = [f"{n:03d}" for n in range(number)]
    kfold = selection.KFold(n_splits=5, shuffle=True, random_state=12345)
    expected = [{"train": [names[i] for i in a], "val": [names[i] for i in b]} for a, b in kfold.split(names)]
    assert splits.nnunet_folds(names) == expected


def test_a_fold_is_chosen_and_all_are_written(store, tmp_path):
    train, val = splits.choose(recipe(folds=3, fold=1), store, str(tmp_path))
    written = files.read_json(tmp_path / "splits.json")
    assert written[1] == {"train": list(train), "val": list(val)} and len(written) == 3
    again = recipe(splits=str(tmp_path / "splits.json"), fold=1)  # what was written can be read
    assert splits.choose(again, store, str(tmp_path)) == (train, val)


def test_without_either_the_store_says(store, tmp_path):
    assert splits.choose(recipe(), store, str(tmp_path)) == (SUBJECTS, ())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content, named",
    [
        ({"train": ["s0"], "validation": ["s1"]}, "expected .*names"),
        ({"train": ["s0"], "val": "s1"}, "'val' is not a list of names"),
        ({"train": ["s0"], "val": [], "test": ["s0"]}, "s0 is in both 'train' and 'test'"),
        ({"train": ["s0", "s1", "s0"], "val": []}, "'train' names s0 twice"),
        ({"train": [], "val": ["s1"]}, "somebody to train on"),
        ({"train": ["s0", "s1"], "val": ["s1"]}, "s1 is in both 'train' and 'val'"),
        ({"train": ["s0", "x9"], "val": []}, "no subject 'x9', which train names"),
        ([{"train": ["s0"], "val": []}] * 2, r"config.fold: 4 is not in 0..1"),
    ],
)
def test_a_split_file_that_cannot_be_used_is_refused(store, tmp_path, content, named):
    (tmp_path / "split.json").write_text(json.dumps(content))
    fold = 4 if isinstance(content, list) else 0
    with pytest.raises(ConfigError, match=named):
        splits.choose(recipe(splits=str(tmp_path / "split.json"), fold=fold), store, str(tmp_path))


def test_the_test_list_of_a_split_file_is_the_split_test_and_a_name_is_nobody(store, tmp_path):
    path = tmp_path / "split.json"
    content = {"name": "first", "seed": 3, "train": ["s0"], "val": ["s1"], "test": ["s2", "s4"]}
    path.write_text(json.dumps(content))
    asked = recipe(splits=str(path))
    assert splits.choose(asked, store, str(tmp_path)) == (("s0",), ("s1",))
    assert splits.named(asked, store, "test") == ("s2", "s4") and splits.named(asked, store, "val") == ("s1",)
    store.rows["s4"].owner = store.rows["s0"].owner = "anna"
    with pytest.warns(UserWarning, match="1 persons both train and test, such as anna"):
        splits.choose(asked, store, str(tmp_path))
    path.write_text(json.dumps({**content, "test": []}))
    with pytest.raises(ConfigError, match="nobody is in 'test'"):
        splits.named(asked, store, "test")
    path.write_text(json.dumps({**content, "test": ["x9"]}))
    assert splits.choose(asked, store, str(tmp_path)) == (("s0",), ("s1",))  # who tests is not needed yet
    with pytest.raises(ConfigError, match="no subject 'x9', which test names"):
        splits.named(asked, store, "test")


def test_a_split_by_name_is_the_folds_or_the_stores(store, tmp_path):
    _, val = splits.choose(recipe(folds=3, fold=2), store, str(tmp_path))
    assert splits.named(recipe(folds=3, fold=2), store, "val") == val
    assert splits.named(recipe(), store, "train") == SUBJECTS


def test_more_folds_than_subjects_are_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"config.folds: 12 folds of 11 subjects"):
        splits.choose(recipe(folds=12), store, str(tmp_path))


def test_the_public_split_of_btcv_has_24_and_6():
    [split] = splits.read(str(btcv.SPLIT))
    assert len(split["train"]) == 24 and split["val"] == [f"img{n:04d}" for n in range(35, 41)]
    assert btcv.get_config().splits == str(btcv.SPLIT)


def test_all_scans_of_a_person_are_in_one_fold():
    scans = [f"p{person}_{visit}" for person in range(6) for visit in range(1 + person % 3)]
    made = splits.folds(scans, 3, 0, {scan: scan.split("_")[0] for scan in scans})
    assert sorted(scan for split in made for scan in split["val"]) == sorted(scans)
    for split in made:
        sides = [{scan.split("_")[0] for scan in split[side]} for side in ("train", "val")]
        assert not sides[0] & sides[1] and len(sides[1]) == 2
    single = [
        f"p{person}_2" for person in range(6)
    ]  # names of persons are drawn only where they have several scans
    assert splits.folds(single, 3, 0, {scan: scan[:2] for scan in single}) == splits.folds(single, 3, 0)
    with pytest.raises(ConfigError, match="7 folds of 6 persons"):
        splits.folds(scans, 7, 0, {scan: scan.split("_")[0] for scan in scans})


def test_a_split_file_with_a_person_on_both_sides_is_told(store, tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({"train": ["s0", "s2"], "val": ["s1"]}))
    store.rows["s0"].owner = store.rows["s1"].owner = "anna"
    with pytest.warns(UserWarning, match="1 persons both train and validate, such as anna"):
        splits.choose(recipe(splits=str(tmp_path / "split.json")), store, str(tmp_path))
