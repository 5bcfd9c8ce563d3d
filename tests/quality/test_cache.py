import os

import numpy as np
import pytest

from ukbob_jax.quality import cache
from ukbob_jax.quality.measures import measure


def measures(seed):
    labels = np.random.default_rng(seed).integers(0, 4, (6, 7, 8)).astype(np.uint8)
    return measure(labels, (1.0, 2.0, 3.0), 5)


def equal(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def test_measures_are_read_as_they_were_saved(tmp_path):
    found = {"s2": ("key2", measures(2)), "s1": ("key1", measures(1))}
    cache.save(tmp_path / "measures.npz", found)
    again = cache.load(tmp_path / "measures.npz")
    assert {name: key for name, (key, _) in again.items()} == {"s1": "key1", "s2": "key2"}
    assert all(equal(again[name][1], found[name][1]) for name in found)


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_missing_or_damaged_cache_is_empty(tmp_path, content):
    path = tmp_path / "measures.npz"
    if content is not None:
        path.write_bytes(content)
    assert cache.load(path) == {}


def test_of_what_several_processes_saved_the_last_writing_counts(tmp_path):
    for number, (name, key) in enumerate((("measures.0-of-2.npz", "old"), ("measures.npz", "new"))):
        cache.save(tmp_path / name, {"s1": (key, measures(number)), f"only{number}": (key, measures(3))})
        os.utime(tmp_path / name, ns=(number, number))
    found = cache.load_all(tmp_path)
    assert found["s1"][0] == "new" and equal(found["s1"][1], measures(1))
    assert set(found) == {"s1", "only0", "only1"}
