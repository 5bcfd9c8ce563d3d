"""What was written is read, whole or in crops; what is not there is named."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.conftest import AFFINE, SHAPE, volume
from ukbob_jax.errors import ConfigError, ValuesError
from ukbob_jax.store import schema
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter


def test_reads_what_was_written(store):
    for seed, subject in enumerate(store.subjects):
        image, label = volume(seed)
        np.testing.assert_array_equal(store.read(subject, "image"), image)
        np.testing.assert_array_equal(store.read(subject, "label/auto"), label)
        np.testing.assert_array_equal(store.read(subject, "label/manual"), label[::-1])
    assert store.read("sub-0", "image").dtype == np.int16


def test_rows_hold_what_is_known_of_a_subject(store):
    row = store.rows["sub-1"]
    assert store.subjects == ("sub-0", "sub-1", "sub-2")
    assert (store.split("train"), store.split("test")) == (("sub-0", "sub-1"), ("sub-2",))
    assert row.shape == SHAPE and row.spacing_mm == (2.0, 3.0, 4.0)
    assert np.array_equal(row.affine, AFFINE) and row.contrasts == ("fat", "water")
    assert (row.labels, row.annotated, row.source) == (("auto", "manual"), (1, 3), "sum1")
    assert (row.attributes, row.quality, row.version) == ({"sex": "F"}, {"seam": 0.5}, 1)
    image, _ = volume(1)
    assert row.intensity["mean"][0] == pytest.approx(image[..., 0][image[..., 0] != 0].mean(), rel=1e-6)
    assert store.rows["sub-0"].annotated is None


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_crop_is_the_slice_of_the_whole(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "crops"
    image, label = volume(7)
    if not path.exists():
        StoreWriter(path).write("a", image, AFFINE, {"auto": label}, source="")
    size = [data.draw(st.integers(1, n)) for n in SHAPE]
    start = [data.draw(st.integers(0, n - m)) for n, m in zip(SHAPE, size)]
    window = tuple(slice(low, low + n) for low, n in zip(start, size))
    store = Store.open(path)
    np.testing.assert_array_equal(store.crop("a", "image", start, size), image[window])
    np.testing.assert_array_equal(store.crop("a", "label/auto", start, size), label[window])


@pytest.mark.parametrize(
    "start, size",
    [((-1, 0, 0), (4, 4, 4)), ((0, 0, 30), (4, 4, 4)), ((0, 0, 0), (0, 4, 4)), ((0, 0), (4, 4))],
)
def test_crop_outside_the_volume_is_refused(store, start, size):
    with pytest.raises(ValuesError, match=r"sub-0, image: crop .* leaves the volume \(40, 36, 33\)"):
        store.crop("sub-0", "image", start, size)


def test_store_survives_pickling(store):
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read("sub-1", "image"), store.read("sub-1", "image"))


@pytest.mark.parametrize(
    "name, message", [("label/none", "no such array; there are image, label/auto"), ("x", "no such")]
)
def test_unknown_array_is_named(store, name, message):
    with pytest.raises(ConfigError, match=message):
        store.read("sub-0", name)


def test_unknown_subject_split_and_label_set_are_named(store):
    with pytest.raises(ConfigError, match="no subject 'sub-9' in the store; it has 3"):
        store.read("sub-9", "image")
    with pytest.raises(ConfigError, match="no split 'val'; it has 'test', 'train'"):
        store.split("val")
    with pytest.raises(ConfigError, match="no label set 'x'; it has auto, manual"):
        store.samples("sub-0", "x")


def test_another_process_has_as_much_memory_for_decoded_chunks(store):
    other = pickle.loads(pickle.dumps(store.caching(12345)))
    assert other.cache_bytes == 12345 and other.subjects == store.subjects


def test_decoded_bytes_are_those_of_the_arrays(store):
    row = store.rows["sub-0"]
    image, label = store.read("sub-0", "image"), store.read("sub-0", "label/auto")
    samples = len(row.present["auto"]) * schema.SAMPLES * 3 * 2
    assert row.decoded_bytes() == image.nbytes and row.dtype == image.dtype.name
    assert row.decoded_bytes("auto") == image.nbytes + label.nbytes + samples
