import json
import pathlib

import numpy as np
import pytest
import tensorstore as ts

from ukbob_jax.errors import ValuesError
from ukbob_jax.store import schema


def test_each_array_is_one_shard_whose_chunks_tile(store):
    files = sorted(
        path.name
        for path in pathlib.Path(store.path, "subjects/sub-0/0001/image").rglob("*")
        if path.is_file()
    )
    assert files == ["0", "zarr.json"]
    assert schema.chunks((224, 168, 363)) == [32, 34, 33]
    for n in range(1, 400):
        chunk = schema.chunks((n,))[0]
        assert chunk <= 48 and -(-n // chunk) * chunk - n < chunk
    codecs = json.loads(pathlib.Path(store.path, "subjects/sub-0/0001/image/zarr.json").read_text())["codecs"]
    assert codecs[0]["configuration"]["chunk_shape"] == [40, 36, 33, 2]


@pytest.mark.parametrize("name", ["a", "1000001_2", "A.b-c_d", "x" * 128])
def test_plain_names_are_folder_names(name):
    assert schema.check_name(name, "subject") == name
    assert schema.subject_folder(name) == f"subjects/{name}/"


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "-a", "a/b", "a\\b", "a b", "a\n", "x" * 129, 3])
def test_names_that_could_leave_the_store_are_refused(name):
    with pytest.raises(ValuesError, match=r"^label set .*: use 1 to 128 letters"):
        schema.check_name(name, "label set")


@pytest.mark.parametrize("name", ["mask", "mask/", "mask/../a", "mask/a/b", "other/a", "", 3])
def test_only_masks_have_a_slash_in_their_name(name):
    assert schema.check_label_set("mask/anatomy", "label set") == "mask/anatomy"
    with pytest.raises(ValuesError, match="label set"):
        schema.check_label_set(name, "label set")


def test_an_array_is_read_only_with_the_layout_it_was_written_with(tmp_path):
    folder = schema.open_root(tmp_path)
    label = np.arange(40 * 36 * 33, dtype=np.uint32).astype(np.uint8).reshape(40, 36, 33)
    ts.open(schema.array_spec(folder, "label/auto", label.shape), create=True).result().write(label).result()
    again = ts.open(schema.array_spec(folder, "label/auto", label.shape)).result()
    np.testing.assert_array_equal(again.read().result(), label)
    with pytest.raises(ValueError, match="shape"):
        ts.open(schema.array_spec(folder, "label/auto", (40, 36, 32))).result()


def test_below_is_the_folder_and_nothing_beside_it(tmp_path):
    root = schema.open_root(tmp_path)
    for key in ("a/1", "a/b/2", "a", "a-", "a0", "b/1"):
        if key != "a":  # a file system has no file and folder of one name
            root.write(key, b"x").result()
    assert sorted(root.list(schema.below("a/")).result()) == [b"a/1", b"a/b/2"]
