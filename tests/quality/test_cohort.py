import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.quality import cohort, fit, measure, stack
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter


def label_of(seed):
    return np.random.default_rng(seed).integers(0, 3, (6, 7, 8)).astype(np.uint8)


@pytest.fixture
def store(tmp_path):
    image = np.zeros((6, 7, 8, 1), np.int16)
    with StoreWriter(tmp_path / "store") as writer:
        for seed in range(3):
            labels = {"auto": label_of(seed)} | ({"body": np.ones((6, 7, 8), np.uint8)} if seed else {})
            writer.write(f"s{seed}", image, np.eye(4), labels, source=f"sum{seed}")
    return Store.open(tmp_path / "store")


def run(store, folder, **options):
    return cohort.measured(store, list(store.subjects), "auto", folder, **options)


def test_every_subject_is_measured_once_and_again_when_its_label_changes(store, tmp_path, monkeypatch):
    found, errors = run(store, tmp_path)
    assert not errors
    expected = measure(label_of(1), (1.0, 1.0, 1.0), anatomy.NUM_CLASSES)
    np.testing.assert_array_equal(found["s1"].surface_mm2, expected.surface_mm2)
    with StoreWriter(store.path) as writer:
        writer.write_label("s1", "auto", label_of(9))
    counted = []
    monkeypatch.setattr(
        cohort, "measure", lambda labels, *rest: counted.append(labels) or measure(labels, *rest)
    )
    again, _ = run(Store.open(store.path), tmp_path)
    assert len(counted) == 1 and np.array_equal(counted[0], label_of(9)) and set(again) == set(found)
    assert cohort.version(Store.open(store.path), "s1", "auto") == "0002"


def test_a_label_map_that_cannot_be_read_is_an_error_of_its_subject(store, tmp_path, monkeypatch):
    read = Store.read

    def failing(self, subject, name):
        if subject == "s1":
            raise FileError("s1 is damaged")
        return read(self, subject, name)

    monkeypatch.setattr(Store, "read", failing)
    found, errors = run(store, tmp_path)
    assert set(found) == {"s0", "s2"} and str(errors["s1"]) == "s1 is damaged"


def test_bodies_of_two_kinds_are_not_compared(store):
    assert cohort.body_set(store, "auto", "body") == ""  # s0 has none
    assert cohort.body_set(store, "body", "body") == "body"
    measures = stack([measure(label_of(seed), (1.0, 1.0, 1.0), 3) for seed in range(3)])
    limits = fit(measures)
    cohort.check_body(limits, "", "limits.json")
    with pytest.raises(MismatchError, match=r"limits\.json: fitted with the body as union of labels"):
        cohort.check_body(limits, "body", "limits.json")
