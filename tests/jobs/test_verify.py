"""Damage found, listed, dropped, and made anew by ingesting again (F7)."""

import pathlib
import re

import ml_collections
import numpy as np
import pytest

from tests.jobs.test_ingest import cohort
from tests.store.test_faults import flip, shard
from tools.site import formats
from ukbob_jax import errors, files
from ukbob_jax.jobs import ingest, verify
from ukbob_jax.store.reader import Store
from ukbob_jax.store.reader import verify as verify_store


@pytest.fixture
def store(tmp_path) -> Store:
    ingest.run(cohort(tmp_path / "store", splits={}), str(tmp_path))
    return Store.open(tmp_path / "store")


def recipe(path: str, repair: bool = False) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"store": path, "repair": repair})


def damage(store: Store) -> dict[str, str]:
    """One way for each of three subjects; subject -> what verification says of it."""
    one, two, three, _ = store.subjects
    flip(shard(store, one, "image"), 0.7)
    shard(store, two, "label/auto").unlink()
    flip(pathlib.Path(store.path, "subjects", three, "done.json"), 0.5)
    return {one: "image: c/.* is damaged", two: "label/auto: c/.* is missing", three: "done.json: is damaged"}


def test_a_sound_store_has_no_damage(store, tmp_path, capsys):
    assert verify_store(store.path) == {}
    verify.run(recipe(store.path), str(tmp_path))
    assert "4 subjects" in capsys.readouterr().err and not (tmp_path / "damaged.jsonl").exists()


def test_damage_is_listed_and_ends_with_exit_code_4(store, tmp_path):
    expected = damage(store)
    with pytest.raises(errors.SomeFailed, match=r"3 of 4 subjects .* are damaged, listed in") as caught:
        verify.run(recipe(store.path), str(tmp_path))
    assert caught.value.exit_code == 4
    assert formats.check_file("damaged", tmp_path / "damaged.jsonl") == 3
    found = {row["subject"]: row["damage"] for row in files.read_jsonl(tmp_path / "damaged.jsonl")}
    assert found == verify_store(store.path) and found.keys() == expected.keys()
    assert all(re.fullmatch(expected[subject], found[subject]) for subject in expected)


def test_repair_and_ingest_make_the_same_store_again(store, tmp_path):
    before = {name: store.read(name, "image") for name in store.subjects}
    damaged = damage(store)
    verify.run(recipe(store.path, repair=True), str(tmp_path))
    assert set(Store.open(store.path).subjects) == set(before) - set(damaged)
    ingest.run(cohort(tmp_path / "store", splits={}), str(tmp_path))
    assert verify_store(store.path) == {}
    again = Store.open(store.path)
    assert again.subjects == store.subjects
    for subject in before:
        np.testing.assert_array_equal(again.read(subject, "image"), before[subject])


def test_a_vanished_subject_and_a_damaged_manifest_are_seen(store):
    (pathlib.Path(store.path) / "subjects" / store.subjects[0] / "done.json").unlink()
    assert verify_store(store.path) == {store.subjects[0]: "done.json: missing"}
    flip(pathlib.Path(store.path, "manifest.jsonl"), 0.5)
    assert verify_store(store.path) == {}  # the folders are what counts


def test_no_store_is_bad_input(tmp_path):
    with pytest.raises(errors.FileError, match="no such store"):
        verify.run(recipe(str(tmp_path / "none")), str(tmp_path))
