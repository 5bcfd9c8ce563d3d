"""From sources to a store: phantoms and files, failures that stop nothing, and runs that resume."""

import json
import pathlib
import shutil

import ml_collections
import nibabel
import numpy as np
import pytest

from ukbob_jax import anatomy, errors, files, phantom
from ukbob_jax.jobs import ingest
from ukbob_jax.sources import phantom as phantom_source
from ukbob_jax.splits import assign_splits
from ukbob_jax.store.reader import Store

SHAPE = (32, 24, 64)  # voxels; the coarsest on which the phantom has most organs


def recipe(store: pathlib.Path, workers: int = 1, **source) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict({"store": str(store), "workers": workers})
    config.source = ml_collections.ConfigDict(source)
    return config.lock()


def cohort(store: pathlib.Path, **changes) -> ml_collections.ConfigDict:
    source = {"kind": "phantom", "count": 4, "shape": SHAPE, "seed": 0, "errors": 0.3, "splits": {"test": 1}}
    return recipe(store, changes.pop("workers", 1), **{**source, **changes})


def write_scan(
    folder: pathlib.Path, name: str, seed: int = 0, shape=(10, 11, 12), affine=None, top: int = 5
) -> None:
    rng = np.random.default_rng(seed)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    image = rng.integers(1, 500, shape).astype(np.int16)
    label = rng.integers(0, top, shape).astype(np.uint8)
    for kind, array in (("images", image), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / kind / f"{name}.nii.gz")


@pytest.fixture
def dataset(tmp_path) -> pathlib.Path:
    for seed in range(3):
        write_scan(tmp_path / "data", f"scan{seed}", seed)
    return tmp_path / "data"


def folders(store: pathlib.Path, data: pathlib.Path, **changes) -> ml_collections.ConfigDict:
    paths = {"images": str(data / "images"), "labels": str(data / "labels")}
    return recipe(
        store, changes.pop("workers", 1), **{"kind": "files", "layout": "folders", "paths": paths, **changes}
    )


def times(store: pathlib.Path) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns for path in pathlib.Path(store).glob("subjects/*/done.json")
    }


def test_phantom_cohort_has_truth_and_planted_errors(tmp_path):
    ingest.run(cohort(tmp_path / "store"), str(tmp_path))
    store = Store.open(tmp_path / "store")
    assert store.subjects == tuple(f"phantom-{number:05d}" for number in range(4))
    assert (len(store.split("train")), len(store.split("test"))) == (3, 1)
    for number, subject in enumerate(store.subjects):
        row = store.rows[subject]
        image, label = phantom.subject(number, SHAPE)
        np.testing.assert_array_equal(store.read(subject, "image"), image)
        np.testing.assert_array_equal(store.read(subject, "label/manual"), label)
        np.testing.assert_allclose(row.affine, phantom.affine(SHAPE))
        assert row.contrasts == tuple(phantom.CONTRASTS) and row.attributes["sex"] in ("F", "M")
        changed = store.read(subject, "label/auto") != label
        assert changed.any() == bool(row.quality["planted"]) == (row.split == "train")
        if row.split == "train":
            organs = {error["organ"] for error in row.quality["planted"]}
            touched = set(np.unique(label[changed])) | set(
                np.unique(store.read(subject, "label/auto")[changed])
            )
            assert organs <= touched and len(organs) >= 5


def test_other_scanner_shows_the_same_bodies(tmp_path):
    for scanner in ("", "noise"):
        config = cohort(
            tmp_path / f"store{scanner}", count=1, splits={}, errors=0.0, scanner=scanner, first=7
        )
        ingest.run(config, str(tmp_path))
    plain, noisy = (Store.open(tmp_path / f"store{scanner}") for scanner in ("", "noise"))
    assert plain.subjects == noisy.subjects == ("phantom-00007",)
    one, two = (store.read("phantom-00007", "label/manual") for store in (plain, noisy))
    np.testing.assert_array_equal(one, two)
    assert (plain.read("phantom-00007", "image") != noisy.read("phantom-00007", "image")).mean() > 0.5


def test_running_again_touches_nothing_and_more_subjects_are_added(tmp_path):
    ingest.run(cohort(tmp_path / "store", count=2, splits={}), str(tmp_path))
    before = times(tmp_path / "store")
    ingest.run(cohort(tmp_path / "store", count=3, splits={}), str(tmp_path))
    after = times(tmp_path / "store")
    assert len(after) == 3 and all(after[subject] == before[subject] for subject in before)
    ingest.run(cohort(tmp_path / "store", count=3, splits={}, errors=0.0), str(tmp_path))
    again = times(tmp_path / "store")
    assert again.keys() == after.keys() and all(again[subject] != after[subject] for subject in after)


def test_folders_are_reoriented_and_kept_native(tmp_path, dataset):
    ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    store = Store.open(tmp_path / "store")
    source = nibabel.load(dataset / "images" / "scan1.nii.gz")
    ras = nibabel.as_closest_canonical(source)
    assert store.subjects == ("scan0", "scan1", "scan2") and store.split("train") == store.subjects
    np.testing.assert_array_equal(store.read("scan1", "image")[..., 0], np.asarray(ras.dataobj))
    assert store.read("scan1", "image").dtype == np.int16
    np.testing.assert_allclose(store.rows["scan1"].affine, ras.affine)
    label = nibabel.as_closest_canonical(nibabel.load(dataset / "labels" / "scan1.nii.gz"))
    np.testing.assert_array_equal(store.read("scan1", "label/manual"), np.asarray(label.dataobj))
    assert store.rows["scan1"].annotated is None


def test_resampling_relabelling_and_naming_follow_the_recipe(tmp_path, dataset):
    config = folders(
        tmp_path / "store",
        dataset,
        spacing_mm=(4.0, 4.0, 3.0),
        label_map="btcv",
        contrasts=("ct",),
        splits={"val": 1},
    )
    ingest.run(config, str(tmp_path))
    store = Store.open(tmp_path / "store")
    row = store.rows["scan0"]
    assert row.spacing_mm == pytest.approx((4.0, 4.0, 3.0)) and row.contrasts == ("ct",)
    assert len(store.split("val")) == 1
    mapping = anatomy.from_dataset("btcv")
    assert row.annotated == tuple(sorted(set(mapping.mapped.values())))
    assert set(row.present["manual"]) <= set(row.annotated)


def test_changed_file_or_setting_replaces_its_subject_only(tmp_path, dataset):
    ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    before = times(tmp_path / "store")
    write_scan(dataset, "scan1", seed=77)
    ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    after = times(tmp_path / "store")
    assert [subject for subject in before if before[subject] != after[subject]] == ["scan1"]
    ras = nibabel.as_closest_canonical(nibabel.load(dataset / "images" / "scan1.nii.gz"))
    np.testing.assert_array_equal(
        Store.open(tmp_path / "store").read("scan1", "image")[..., 0], np.asarray(ras.dataobj)
    )


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_image_and_label_of_one_name_are_both_watched_for_changes(tmp_path, dataset, kind):
    ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    before = times(tmp_path / "store")
    source = nibabel.load(dataset / kind / "scan1.nii.gz")
    changed = np.asarray(source.dataobj)[::-1]
    nibabel.save(nibabel.Nifti1Image(changed, source.affine), dataset / kind / "scan1.nii.gz")
    ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    after = times(tmp_path / "store")
    assert [subject for subject in before if before[subject] != after[subject]] == ["scan1"]


def test_link_that_leads_nowhere_is_bad_input(tmp_path):
    write_scan(tmp_path / "data", "only")
    (tmp_path / "data/images/only.nii.gz").unlink()
    (tmp_path / "data/images/only.nii.gz").symlink_to(tmp_path / "not_fetched")
    with pytest.raises(
        errors.FileError, match=r"images/only\.nii\.gz: cannot be read: No such file"
    ) as caught:
        ingest.run(folders(tmp_path / "store", tmp_path / "data"), str(tmp_path))
    assert caught.value.exit_code == 3


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_bit(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def replace_with_text(path: pathlib.Path) -> None:
    path.write_text("<html>not found</html>")


def move_the_grid(path: pathlib.Path) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([-2.0, 2.0, 4.0, 1.0])), path)


def not_a_number(path: pathlib.Path) -> None:
    image = nibabel.load(path)
    array = np.asarray(image.dataobj).astype(np.float32)
    array[1, 2, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, image.affine), path)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, replace_with_text, move_the_grid, not_a_number])
def test_bad_scan_is_listed_and_the_others_arrive(tmp_path, dataset, damage):
    damage(dataset / "images" / "scan1.nii.gz")
    with pytest.raises(
        errors.SomeFailed, match=r"1 of 3 subjects failed, listed in .*failures.jsonl"
    ) as caught:
        ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    assert caught.value.exit_code == 4
    [row] = files.read_jsonl(tmp_path / "failures.jsonl")
    assert set(row) == {"subject", "file", "stage", "reason"}
    assert row["subject"] == "scan1" and row["stage"] == "read" and "scan1.nii.gz" in row["file"]
    assert "scan1.nii.gz" in row["reason"]
    assert Store.open(tmp_path / "store").subjects == ("scan0", "scan2")
    assert not (tmp_path / "store/subjects/scan1").exists()


def test_a_scan_without_labels_is_listed_and_the_others_arrive(tmp_path, dataset):
    (dataset / "labels" / "scan1.nii.gz").unlink()
    for kind in ("images", "labels"):
        (dataset / kind / "._scan7.nii.gz").write_bytes(b"\0\5\x16\7")
        (dataset / kind / ".DS_Store").write_bytes(b"Bud1")
    with pytest.raises(
        errors.SomeFailed, match=r"1 of 3 subjects failed.*scan1\.nii\.gz: it has no label map"
    ):
        ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    [row] = files.read_jsonl(tmp_path / "failures.jsonl")
    assert row["subject"] == "scan1" and row["stage"] == "list"
    assert Store.open(tmp_path / "store").subjects == ("scan0", "scan2")


def test_doubtful_scans_are_stored_and_told_at_the_end(tmp_path, dataset):
    write_scan(dataset, "scan1", seed=1, affine=np.eye(4))
    with pytest.warns(
        UserWarning, match=r"store: 1 of 3 scans \(scan1\): its affine is exactly the identity"
    ):
        ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    store = Store.open(tmp_path / "store")
    assert "identity" in store.rows["scan1"].quality["doubts"][0] and not store.rows["scan0"].quality


def test_ct_without_its_rescale_is_told(tmp_path, dataset):
    for number in range(3):
        path = dataset / "images" / f"scan{number}.nii.gz"
        image = nibabel.load(path)
        values = np.asarray(image.dataobj) - (1000 if number else -850)
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), image.affine), path)
    with pytest.warns(
        UserWarning, match=r"1 of 3 scans \(scan0\): it looks like HU \+ 1024: no value is negative"
    ):
        ingest.run(folders(tmp_path / "store", dataset, contrasts=("ct",)), str(tmp_path))


def test_mended_scan_arrives_and_the_list_of_failures_goes(tmp_path, dataset):
    good = tmp_path / "good.nii.gz"
    shutil.copy(dataset / "images" / "scan1.nii.gz", good)
    truncate(dataset / "images" / "scan1.nii.gz")
    with pytest.raises(errors.SomeFailed, match=r"1 of 3 subjects failed"):
        ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    shutil.copy(good, dataset / "images" / "scan1.nii.gz")
    ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    assert len(Store.open(tmp_path / "store").subjects) == 3 and not (tmp_path / "failures.jsonl").exists()


def test_single_bad_scan_is_bad_input(tmp_path):
    write_scan(tmp_path / "data", "only")
    truncate(tmp_path / "data/images/only.nii.gz")
    with pytest.raises(errors.FileError, match=r"only\.nii\.gz") as caught:
        ingest.run(folders(tmp_path / "store", tmp_path / "data"), str(tmp_path))
    assert caught.value.exit_code == 3


def test_unwritable_store_stops_the_run(tmp_path, dataset, monkeypatch):
    def full(*args, **kwargs):
        raise errors.FileError("store: cannot write: no space left")

    monkeypatch.setattr(ingest.StoreWriter, "write", full)
    with pytest.raises(errors.FileError, match="no space left"):
        ingest.run(folders(tmp_path / "store", dataset), str(tmp_path))
    assert not (tmp_path / "failures.jsonl").exists()


@pytest.mark.parametrize(
    "source, message",
    [
        ({"kind": "dicom"}, "kind is 'dicom'; expected one of dwi, files, openmind, phantom"),
        ({"kind": "phantom", "count": 1}, "missing a required argument.*kind 'phantom' takes count, shape"),
        (
            {"kind": "phantom", "count": 1, "shape": SHAPE, "seed": 0, "errros": 1},
            "unexpected keyword argument 'errros'",
        ),
        (
            {"kind": "phantom", "count": 1, "shape": SHAPE, "seed": 0, "splits": {"val": 2}},
            "more than the 1 persons",
        ),
        ({"kind": "phantom", "count": 1, "shape": SHAPE, "seed": 0, "scanner": "x"}, "scanner"),
        (
            {"kind": "files", "layout": "folders", "paths": {"images": "x"}, "spacing_mm": (1.0,)},
            "three positive",
        ),
        ({"kind": "files", "layout": "nothing", "paths": {}}, "layout='nothing' is not known"),
        (
            {"kind": "files", "layout": "folders", "paths": {}, "spacing": ()},
            "unexpected keyword argument 'spacing' .kind 'files' takes layout, paths, splits, seed, spacing_mm, label_map",
        ),
        ({"kind": "files", "layout": "folders"}, "missing a required argument: 'paths'.*constant"),
        (
            {"kind": "files", "layout": "folders", "paths": {}, "nan": "drop"},
            "nan is 'drop'; expected refuse or zero",
        ),
    ],
)
def test_wrong_settings_are_configuration_errors(tmp_path, source, message):
    with pytest.raises(errors.ConfigError, match=message):
        ingest.run(recipe(tmp_path / "store", **source), str(tmp_path))


def test_missing_folder_is_bad_input(tmp_path):
    with pytest.raises(errors.FileError, match="no such"):
        ingest.run(folders(tmp_path / "store", tmp_path / "nowhere"), str(tmp_path))


def test_splits_move_little_when_subjects_are_added():
    names = [f"s{number}" for number in range(100)]
    one = assign_splits(names, {"val": 10, "test": 20}, seed=0)
    two = assign_splits([*names, "new"], {"val": 10, "test": 20}, seed=0)
    assert sum(one[name] != two[name] for name in names) <= 2
    assert sorted(one.values()).count("val") == 10 and sorted(one.values()).count("test") == 20
    assert one != assign_splits(names, {"val": 10, "test": 20}, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["", "local"])
def test_many_workers_write_what_one_writes(tmp_path, cluster):
    if cluster:
        pytest.importorskip("distributed")
    ingest.run(cohort(tmp_path / "store1"), str(tmp_path))
    config = cohort(tmp_path / "store2", workers=2).unlock()
    config.cluster = cluster
    ingest.run(config, str(tmp_path))
    one, two = (tmp_path / "store1", tmp_path / "store2")
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert len(names) > 4 and names == sorted(
        str(path.relative_to(two)) for path in two.rglob("*") if path.is_file()
    )
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_origins_are_small_enough_to_send():
    [origin] = phantom_source.list_subjects(count=1, shape=SHAPE, seed=0)
    assert len(json.dumps(vars(origin))) < 500 and origin.files() == []
