"""Fingerprints that lie in stores and workdirs: if one of these values changes, everything there looks out of date."""

import types

from ukbob_jax import files
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.jobs import label
from ukbob_jax.splits import digest
from ukbob_jax.store.row import Subject


def test_a_fingerprint_is_of_the_value_and_has_the_digits_asked_for():
    known = "3813f9409eb0095bf9c8e1225c627acf867d89bd18b8856fc38588a0c8c490f3"
    assert files.fingerprint({"b": 1, "a": [1, 2]}) == known[:16]
    assert files.fingerprint({"a": (1, 2), "b": 1}, 64) == known
    assert files.fingerprint({"a": [2, 1], "b": 1}) != known[:16]


def test_fingerprints_that_old_stores_and_workdirs_hold_keep_their_value():
    rows = {
        "s0": Subject("s0", source="ab", folders={"image": "0001/image", "label/auto": "0002/label/auto"}),
        "s1": Subject("s1", source="cd", folders={"image": "0001/image", "label/auto": "0001/label/auto"}),
    }
    store = types.SimpleNamespace(rows=rows)
    data = TrainingData(store, ("s0", "s1"), (), "auto", ("0",), {}, None, None, {"s0": {5, 3}})
    assert data.fingerprint() == "ec5103b669c6"
    assert label.fingerprint({"labeller": "command"}, rows["s0"]) == "91904acc83ab741c"
    known = "3813f9409eb0095bf9c8e1225c627acf867d89bd18b8856fc38588a0c8c490f3"
    assert digest({"b": 1, "a": [1, 2]}) == known
