"""What is written comes back, and what does not fit is refused before anything is written."""

import numpy as np
import pytest

from tests.store.conftest import AFFINE, SHAPE, volume
from ukbob_jax.errors import ConfigError, FileError, GeometryError, MismatchError, ValuesError
from ukbob_jax.store import schema, writer
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter


def test_zarr_python_reads_the_arrays_with_axes_in_order(store):
    zarr = pytest.importorskip("zarr")
    image, label = volume(2)
    folder = f"{store.path}/subjects/sub-2/0001"
    found = zarr.open_array(f"{folder}/image", mode="r")
    np.testing.assert_array_equal(found[:], image)
    assert found.metadata.dimension_names == ("x", "y", "z", "c") and found.dtype == np.int16
    np.testing.assert_array_equal(zarr.open_array(f"{folder}/label/auto", mode="r")[:], label)


def test_float32_is_stored_exactly_where_asked(tmp_path):
    image = np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32)
    with StoreWriter(tmp_path) as writer:
        writer.write("a", image, AFFINE, {}, source="", exact=True)
        writer.write("b", image, AFFINE, {}, source="")
        with pytest.raises(ValuesError, match="1 voxels are NaN"):
            writer.write(
                "c", np.where(image == image.max(), np.nan, image), AFFINE, {}, source="", exact=True
            )
    store = Store.open(tmp_path)
    assert [store.rows[name].dtype for name in "ab"] == ["float32", "int16"]
    np.testing.assert_array_equal(store.read("a", "image"), image)


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


def test_a_file_that_vanishes_while_it_is_hashed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "array").mkdir()
    (tmp_path / "array" / "0").write_bytes(b"chunk")
    folder = schema.open_root(str(tmp_path)) / "array"
    assert writer.digests(folder).keys() == {"0"}
    monkeypatch.setattr(writer, "digest", lambda folder, key: None)
    with pytest.raises(FileError, match="0: gone while it was being written"):
        writer.digests(folder)


def test_masks_lie_in_a_folder_of_their_own(tmp_path):
    image, label = volume(0)
    masks = {"mask/anatomy": label // 4, "mask/anonymisation": (label == 1).astype(np.uint8)}
    with StoreWriter(tmp_path) as writer:
        writer.write("a", image, AFFINE, {"auto": label, **masks}, source="")
        writer.write("a", image, AFFINE, {"auto": label, **masks}, source="again")
        with pytest.raises(ConfigError, match="masks are written with their subject"):
            writer.write_label("a", "mask/anatomy", masks["mask/anatomy"])
    store = Store.open(tmp_path)
    assert store.rows["a"].labels == ("auto", "mask/anatomy", "mask/anonymisation")
    for name, mask in masks.items():
        np.testing.assert_array_equal(store.read("a", f"label/{name}"), mask)
        assert len(store.sample("a", name, 1)) == 512
    store.verify("a")
    assert not [p for p in (tmp_path / "subjects" / "a" / "0001").rglob("*") if p.is_file()]
