"""Writer and reader together: what goes in comes out, whole or in crops, and nothing half written is seen."""

import json
import pathlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.conftest import AFFINE, SHAPE, volume
from ukbob_jax.errors import ConfigError, FileError, GeometryError, MismatchError, ValuesError
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


def test_samples_are_voxels_of_their_class(store):
    _, label = volume(0)
    samples = store.samples("sub-0", "auto")
    assert sorted(samples) == [1, 2, 3, 4]
    for organ, voxels in samples.items():
        assert voxels.shape == (schema.SAMPLES, 3) and voxels.dtype == np.int32
        assert len(np.unique(voxels, axis=0)) == schema.SAMPLES
        assert (label[tuple(voxels.T)] == organ).all()
        np.testing.assert_array_equal(store.sample("sub-0", "auto", organ), voxels)


def test_few_voxels_are_all_sampled_and_ignore_is_not(tmp_path):
    image, _ = volume(0)
    label = np.zeros(SHAPE, np.uint8)
    label[3, 4, 5] = label[30, 20, 10] = 9
    label[0] = 255
    StoreWriter(tmp_path).write("a", image, AFFINE, {"auto": label, "empty": label * 0}, source="")
    samples = Store.open(tmp_path).samples("a", "auto")
    assert {organ: voxels.tolist() for organ, voxels in samples.items()} == {9: [[3, 4, 5], [30, 20, 10]]}
    assert Store.open(tmp_path).samples("a", "empty") == {}


def test_zarr_python_reads_the_arrays_with_axes_in_order(store):
    zarr = pytest.importorskip("zarr")
    image, label = volume(2)
    folder = f"{store.path}/subjects/sub-2/0001"
    found = zarr.open_array(f"{folder}/image", mode="r")
    np.testing.assert_array_equal(found[:], image)
    assert found.metadata.dimension_names == ("x", "y", "z", "c") and found.dtype == np.int16
    np.testing.assert_array_equal(zarr.open_array(f"{folder}/label/auto", mode="r")[:], label)


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


def test_store_survives_pickling(store):
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read("sub-1", "image"), store.read("sub-1", "image"))


@pytest.mark.parametrize(
    "make, tolerance",
    [
        (lambda rng: rng.integers(0, 60_000, (*SHAPE, 2)).astype(np.uint16), 0.0),
        (lambda rng: rng.integers(0, 900, (*SHAPE, 2)).astype(np.float64), 0.0),
        (
            lambda rng: rng.normal(0, 1, (*SHAPE, 2)).astype(np.float32),
            0.5 / 32767 * 7,
        ),  # half a step; |x| < 7
        (lambda rng: rng.normal(0, 1e5, (*SHAPE, 2)), 0.5 / 32767 * 7e5),
        (lambda rng: np.zeros((*SHAPE, 2), np.float32) + 0.25, 1e-6),
        (lambda rng: rng.integers(0, 2**40, (*SHAPE, 2)), 2**40 / 32767),
    ],
)
def test_other_dtypes_come_back_within_half_a_step(tmp_path, make, tolerance):
    image = make(np.random.default_rng(0))
    image[:2] = 0
    with StoreWriter(tmp_path) as writer:
        writer.write("a", image, AFFINE, {}, source="")
    found = Store.open(tmp_path).read("a", "image")
    assert found.dtype in (np.int16, np.float32)
    np.testing.assert_allclose(found, image, rtol=1e-6, atol=tolerance)
    if image.dtype.kind == "f":
        assert (found[:2] == 0).all()


def test_not_finite_voxels_are_refused_with_count_and_place(tmp_path):
    image = np.ones((*SHAPE, 1), np.float32)
    image[3, 2, 1] = image[4, 0, 0] = np.nan
    with pytest.raises(ValuesError, match=r"a: 2 voxels are NaN or infinite, the first at \(3, 2, 1, 0\)"):
        StoreWriter(tmp_path).write("a", image, AFFINE, {}, source="")
    assert not (tmp_path / "subjects").exists()


@pytest.mark.parametrize(
    "subject", ["", "..", "../x", "a/b", "/abs", ".hidden", "a b", "x" * 200, "a\n", "é"]
)
def test_unsafe_subject_ids_are_refused(tmp_path, subject):
    image, label = volume(0)
    with pytest.raises(ValuesError, match="letters, digits"):
        StoreWriter(tmp_path / "store").write(subject, image, AFFINE, {"auto": label}, source="")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"affine": np.diag([1.0, 1.0, 0.0, 1.0])}, GeometryError, "not an invertible 4 by 4"),
        ({"affine": np.full((4, 4), np.nan)}, GeometryError, "not an invertible 4 by 4"),
        ({"image": np.ones(SHAPE)}, GeometryError, "expected real values x y z c"),
        ({"image": np.ones((32768, 1, 1, 1), np.int16)}, GeometryError, "an axis has at most 32767"),
        ({"contrasts": ("fat",)}, MismatchError, "2 channels but contrasts"),
        ({"labels": {"auto": np.zeros((3, 3, 3), np.uint8)}}, MismatchError, r"\(3, 3, 3\), its image \(40, 36, 33\)"),
        ({"labels": {"auto": np.full(SHAPE, 300)}}, ValuesError, "not integers 0..255"),
        ({"labels": {"../x": np.zeros(SHAPE, np.uint8)}}, ValuesError, "label set '../x'"),
        ({"attributes": {"patient_name": "x"}}, ValuesError, "'patient_name' may not be stored; allowed: age_years"),
        ({"quality": {"seam": float("nan")}}, ValuesError, "cannot be stored as JSON"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, change, error, message):
    image, label = volume(0)
    given = {"image": image, "affine": AFFINE, "labels": {"auto": label}, "source": "", **change}
    writer = StoreWriter(tmp_path)
    with pytest.raises(error, match=message):
        writer.write("a", given.pop("image"), given.pop("affine"), given.pop("labels"), **given)
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


def test_added_label_set_leaves_the_rest(store):
    new = np.full(SHAPE, 7, np.uint8)
    with StoreWriter(store.path) as writer:
        writer.write_label("sub-0", "model", new, {"checkpoint": "best"})
    again = Store.open(store.path)
    assert again.rows["sub-0"].labels == ("auto", "manual", "model")
    assert again.rows["sub-0"].provenance["model"] == {"checkpoint": "best"}
    assert again.rows["sub-0"].folders["image"] == "0001/image"
    np.testing.assert_array_equal(again.read("sub-0", "label/model"), new)
    np.testing.assert_array_equal(again.read("sub-0", "label/auto"), store.read("sub-0", "label/auto"))
    assert store.rows["sub-0"].labels == ("auto", "manual")


def test_label_for_an_unknown_subject_is_refused(store):
    with pytest.raises(FileError, match="no subject 'sub-9' to add label"):
        StoreWriter(store.path).write_label("sub-9", "model", np.zeros(SHAPE, np.uint8))


def test_has_compares_the_source(store):
    writer = StoreWriter(store.path)
    assert (
        writer.has("sub-0", "sum0") and not writer.has("sub-0", "other") and not writer.has("sub-7", "sum0")
    )


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
