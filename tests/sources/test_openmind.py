"""Manifests of nnssl and of OpenMind; masks by name, against what nnssl's preprocessing makes of the same files."""

import csv
import json
import os
import random
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from ukbob_jax import sources
from ukbob_jax.errors import ConfigError, EmptyError, FileError, MismatchError, ValuesError
from ukbob_jax.sources import openmind, openmind_manifest
from ukbob_jax.sources.openmind import list_subjects
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.conditions import parse

VOXELS = (6, 5, 4)
COLUMNS = (
    "unique_id",
    "image_path",
    "modality",
    "age",
    "sex",
    "derived_from",
    "image_quality_score",
    "is_brain_extract",
)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), path)


def image_of(**changes) -> dict:
    return {
        "name": "T1w.nii.gz",
        "modality": "T1w",
        "image_path": "$DATA/T1w.nii.gz",
        "image_info": {},
        **changes,
    }


def tree(*images, person="sub-1", session="ses-DEFAULT", study="ds1", **about) -> dict:
    """A collection of one study, one person, one session."""
    sessions = {session: {"session_id": session, "images": list(images)}}
    subjects = {person: {"subject_id": person, "subject_info": {"age": 30, "sex": "F"}, "sessions": sessions}}
    return {
        "collection_name": "C",
        "datasets": {study: {"dataset_index": study, "subjects": subjects, **about}},
    }


def save(path, value) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def table(path, rows) -> str:
    more = ("anon_mask_path", "anat_mask_path")
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(
            file, (*COLUMNS, *more), delimiter="\t" if path.suffix == ".tsv" else ",", restval=""
        )
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture
def masked(tmp_path):
    """One image whose anatomy holds 24 voxels, 8 of them anonymised; the manifest lists anatomy first."""
    image = np.arange(1, 121, dtype=np.int16).reshape(VOXELS)
    image[:2] = 0
    anatomy, anonymised = np.zeros(VOXELS, np.uint8), np.zeros(VOXELS, np.uint8)
    anatomy[2:5, 1:3] = 1
    anonymised[4:, 1:3] = 255  # as image editors write masks
    for name, array in (("T1w", image), ("anat", anatomy), ("anon", anonymised)):
        write(tmp_path / f"{name}.nii.gz", array)
    masks = {"anatomy_mask": "$DATA/anat.nii.gz", "anonymization_mask": "$DATA/anon.nii.gz"}
    return save(tmp_path / "pretrain_data.json", tree(image_of(associated_masks=masks)))


def stored(manifest, tmp_path, **settings):
    [one] = list_subjects(manifest=manifest, variables=(f"DATA={tmp_path}",), **settings)
    with StoreWriter(tmp_path / "store") as writer:
        writer.write(one.subject, source=one.checksum(), split=one.split, **one.convert(one.read()))
    return Store.open(tmp_path / "store"), one.subject


def test_masks_are_told_by_name_and_hold_0_and_1(masked, tmp_path):
    """nnssl swaps the two, and stores -1 outside the non-zero region."""
    store, subject = stored(masked, tmp_path, crop=True)
    anatomy, anonymised = (store.read(subject, f"label/mask/{name}") for name in ("anatomy", "anonymisation"))
    assert anatomy.shape == (4, 5, 4) and store.rows[subject].contrasts == ("image",)
    assert (anatomy.sum(), anonymised.sum()) == (24, 16)
    assert set(np.unique(anatomy)) == set(np.unique(anonymised)) == {0, 1}
    assert anatomy[0, 1, 0] == 1 and anonymised[3, 1, 0] == 1 and anatomy[3, 1, 0] == 0


def test_crops_are_centred_in_tissue_that_was_not_altered(masked, tmp_path):
    """nnssl's centre was never inside the anatomy."""
    store, subject = stored(masked, tmp_path)
    voxels = store.sample(subject, "mask/anatomy", 1)
    anatomy, anonymised = (store.read(subject, f"label/mask/{name}") for name in ("anatomy", "anonymisation"))
    assert len(voxels) == 16
    assert anatomy[tuple(voxels.T)].all() and not anonymised[tuple(voxels.T)].any()


@pytest.mark.parametrize("configuration", ["native", "onemmiso"])
def test_nnssls_own_files_are_swapped_and_ours_are_not(reference, configuration, tmp_path):
    folder = reference / "ssl" / "nnssl_data" / configuration
    expected = json.loads((folder / "expected.json").read_text())["arrays"]
    raw = json.loads((folder / "raw" / "pretrain_data.json").read_text())
    (tmp_path / raw["collection_name"]).symlink_to(folder / "raw")
    found = list_subjects(
        manifest=str(folder / "raw" / "pretrain_data.json"), variables=(f"nnssl_raw={tmp_path}",), crop=True
    )
    assert [one.subject for one in found][:3] == [
        "ds000__sub-01__ses-01__T1w", "ds000__sub-01__ses-02__T2w", "ds000__sub-02__ses-DEFAULT__T1w",
    ]  # fmt: skip
    assert {name: len(one.masks) for one, name in zip(found, "abc")} == {"a": 2, "b": 1, "c": 1}
    for one in found if configuration == "native" else ():
        labels = one.convert(one.read())["labels"]
        swapped = len(labels) == 2
        for name, label in labels.items():
            ending = "anat" if (name == "mask/anatomy") != swapped else "anon"
            study, person, session, image = one.subject.split("__")
            path = f"nnsslPlans_noresample/{raw['collection_name']}/{study}/{person}/{session}/{image}__{ending}.b2nd"
            assert int(label.sum()) == expected[path]["values"]["1.0"]
            assert sorted(label.shape) == sorted(expected[path]["shape"][1:])


def test_both_forms_of_a_manifest_say_the_same(tmp_path):
    path = "ds1/sub-1/ses-a/dwi/sub-1_dwi__Data/FA.nii.gz"
    rows = [
        {"image_path": path, "modality": "FA", "age": "30", "sex": "F", "derived_from": "DWI", "image_quality_score": "2",
         "is_brain_extract": "True", "anat_mask_path": "a.nii.gz", "anon_mask_path": "nan"},
        {"image_path": "ds1/sub-1/anat/sub-1_T1w.nii.gz", "modality": "T1w"},
    ]  # fmt: skip
    info = {"derived_from": "DWI", "is_brain_extract": True}
    first = image_of(
        name="sub-1_dwi_FA.nii.gz", modality="FA", image_path=path, image_info=info,
        associated_masks={"anatomy_mask": "a.nii.gz", "anonymization_mask": None},
    )  # fmt: skip
    score = [{"modality": "FA", "derived_from": "DWI", "image_quality_score": 2.0}]
    of_tree = openmind_manifest.read(
        save(tmp_path / "m.json", tree(first, session="ses-a", dataset_info={"image_quality_score": score}))
    )
    for name in ("m.csv", "m.tsv"):
        of_table = openmind_manifest.read(table(tmp_path / name, rows))
        assert of_table[0] == of_tree[0]
        assert of_table[1].session == "ses-DEFAULT" and of_table[1].facts == {} and of_table[1].masks == ()
    assert of_tree[0].facts == {"age": 30.0, "sex": "F", **info, "image_quality_score": 2.0}
    assert openmind.attributes(of_tree[0])["age_years"] == 30.0


def test_a_score_belongs_to_study_modality_and_origin(tmp_path):
    def row(study, person, score, origin=""):
        path = f"{study}/{person}/anat/{person}_T1w.nii.gz"
        return {"image_path": path, "modality": "T1w", "image_quality_score": score, "derived_from": origin}

    rows = [row("ds1", "a", ""), row("ds1", "b", "1.5"), row("ds1", "c", "", "dwi"), row("ds2", "d", "4")]
    manifest = table(tmp_path / "m.csv", rows)
    with pytest.warns(UserWarning, match="1 of 4 images have no quality score"):
        kept = list_subjects(manifest=manifest, max_quality_score=2.5)  # lower is better
    assert [one.person for one in kept] == ["ds1__a", "ds1__b"]
    assert [one.attributes["quality_score"] for one in kept] == [1.5, 1.5]
    with pytest.warns(UserWarning), pytest.raises(EmptyError, match="none of 4 images passes"):
        list_subjects(manifest=manifest, max_quality_score=1.0)
    assert [one.person for one in list_subjects(manifest=manifest, studies=("ds2",))] == ["ds2__d"]
    with pytest.raises(ConfigError, match="modalities: 'T9' is not in the manifest; it has T1w"):
        list_subjects(manifest=manifest, modalities=("T9",))


@pytest.mark.parametrize(
    "text, facts, expected",
    [
        ("sex=f", {"sex": "F"}, True),
        ("sex=M,O", {"sex": "F"}, False),
        ("age=18:65", {"age": 65.0}, True),
        ("age=18:", {"age": 17.9}, False),
        ("age=18:", {"age": "20-30"}, False),
        ("age=:65", {}, False),
        ("magnetic_field_strength=3", {"magnetic_field_strength": 3.0}, True),
        ("is_brain_extract=true", {"is_brain_extract": True}, True),
        ("derived_from=", {}, True),
        ("derived_from=", {"derived_from": "DWI"}, False),
    ],
)
def test_conditions(text, facts, expected):
    assert parse(text, openmind_manifest.COLUMNS, "where")(facts) is expected


@pytest.mark.parametrize("text", ["sex", "hair=red", "age=a:b"])
def test_conditions_that_mean_nothing_are_refused(text):
    with pytest.raises(ConfigError, match="where"):
        parse(text, openmind_manifest.COLUMNS, "where")


def test_the_split_is_nnssls_and_filters_move_nobody(tmp_path):
    def row(n, run, modality):
        path = f"ds{n % 7}/sub-{n:03d}/anat/sub-{n:03d}_run-{run}_{modality}.nii.gz"
        return {"image_path": path, "modality": modality}

    rows = [row(n, run, "T1w" if n % 3 else "T2w") for n in range(700) for run in (1, 2)]
    manifest = table(tmp_path / "m.csv", rows)
    found = list_subjects(manifest=manifest)
    validating = {one.person for one in found if one.split == "val"}
    identifiers = sorted({f"Dataset746_C__ds{n % 7}__sub-{n:03d}" for n in range(700)})
    theirs = random.Random(12345).sample(identifiers, 7)  # 1 %
    assert validating == {name.removeprefix("Dataset746_C__") for name in theirs}
    assert sum(one.split == "val" for one in found) == 14
    filtered = list_subjects(manifest=manifest, modalities=("T2w",))
    assert {one.person for one in filtered if one.split == "val"} <= validating
    sized = list_subjects(manifest=manifest, split="sizes", splits={"val": 3, "test": 2})
    assert len({one.person for one in sized if one.split == "test"}) == 2
    with pytest.raises(ConfigError, match="split is 'none'; expected nnssl or sizes"):
        list_subjects(manifest=manifest, split="none")


@pytest.mark.parametrize("persons, number", [(1, 0), (2, 1), (5, 4), (20, 5), (600, 6), (200_000, 1000)])
def test_who_validates_in_small_and_large_collections(persons, number):
    assert len(openmind.nnssl_validation(map(str, range(persons)))) == number


def test_persons_are_those_of_their_study(tmp_path):
    rows = [
        {"image_path": f"{study}/sub-01/anat/sub-01_T1w.nii.gz", "modality": "T1w"}
        for study in ("ds1", "ds2")
    ]
    found = list_subjects(manifest=table(tmp_path / "m.csv", rows))
    assert [one.person for one in found] == ["ds1__sub-01", "ds2__sub-01"]


def test_a_variable_that_is_not_set_is_one_line(tmp_path, monkeypatch):
    manifest = save(tmp_path / "m.json", tree(image_of()))
    monkeypatch.delenv("DATA", raising=False)
    with pytest.raises(
        ConfigError, match=r"m\.json: paths begin with \$DATA, which is not set\. Set it"
    ) as caught:
        list_subjects(manifest=manifest)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("DATA", "/scans/")
    assert list_subjects(manifest=manifest)[0].image == "/scans/T1w.nii.gz"
    assert list_subjects(manifest=manifest, variables=("$DATA=/other",))[0].image == "/other/T1w.nii.gz"
    with pytest.raises(ConfigError, match="'DATA': expected NAME=FOLDER"):
        list_subjects(manifest=manifest, variables=("DATA",))


def test_a_manifest_of_relative_paths_works_wherever_it_lies(tmp_path):
    image = image_of(image_path="scans/T1w.nii.gz")
    manifest = save(tmp_path / "m.json", tree(image))
    assert list_subjects(manifest=manifest)[0].image == f"{tmp_path}/scans/T1w.nii.gz"
    assert list_subjects(manifest=manifest, root="/data")[0].image == "/data/scans/T1w.nii.gz"


def test_two_machines_make_the_same_subject(masked, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    for path in tmp_path.glob("*.*"):
        os.link(path, there / path.name)
    [one] = list_subjects(manifest=masked, variables=(f"DATA={tmp_path}",))
    [other] = list_subjects(manifest=str(there / "pretrain_data.json"), variables=(f"DATA={there}",))
    assert one.checksum() == other.checksum()
    [resampled] = list_subjects(
        manifest=masked, variables=(f"DATA={tmp_path}",), spacing_mm=(1, 1, 1), order=3
    )
    assert resampled.checksum() != one.checksum()
    assert resampled.convert(resampled.read())["image"].shape == (11, 9, 7, 1)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("datasets"), r"m\.json: not a tree .* \(no 'datasets'\)"),
        (lambda c: c["datasets"]["ds1"]["subjects"]["sub-1"].pop("sessions"), "no 'sessions'"),
        (lambda c: images(c)[0].pop("modality"), "ds1, sub-1, ses-DEFAULT: not a tree .*no 'modality'"),
        (
            lambda c: images(c)[0].update(associated_masks={"skull": "x"}),
            "mask 'skull' is not known; expected anony",
        ),
        (lambda c: images(c).clear(), "names no image"),
    ],
)
def test_a_tree_that_lacks_something_is_named(tmp_path, change, message):
    collection = tree(image_of())
    change(collection)
    with pytest.raises(FileError, match=message):
        openmind_manifest.read(save(tmp_path / "m.json", collection))


def images(collection) -> list:
    return collection["datasets"]["ds1"]["subjects"]["sub-1"]["sessions"]["ses-DEFAULT"]["images"]


def test_a_table_that_lacks_something_is_named(tmp_path):
    with pytest.raises(
        FileError, match=r"m\.csv: line 3: image_path 'b.nii.gz', modality 'T1w'; expected STUDY"
    ):
        openmind_manifest.read(
            table(
                tmp_path / "m.csv", [{"image_path": f"{p}b.nii.gz", "modality": "T1w"} for p in ("d/s/", "")]
            )
        )
    with pytest.raises(ConfigError, match=r"m\.xlsx: expected nnssl's pretrain_data\.json, or a table"):
        openmind_manifest.read(str(tmp_path / "m.xlsx"))


def test_parquet_needs_pandas(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ConfigError, match=r"m\.parquet: reading parquet needs pandas and pyarrow: pip install"
    ):
        openmind_manifest.read(str(tmp_path / "m.parquet"))


def test_parquet_says_what_csv_says(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = {"image_path": "ds1/sub-1/anat/sub-1_T1w.nii.gz", "modality": "T1w", "anat_mask_path": None}
    table = pandas.DataFrame([{**path, "age": 30.0, "sex": None}, {**path, "age": float("nan"), "sex": "F"}])
    table.to_parquet(tmp_path / "m.parquet")
    table.to_csv(tmp_path / "m.csv", index=False)
    found = openmind_manifest.read(str(tmp_path / "m.parquet"))
    assert found == openmind_manifest.read(str(tmp_path / "m.csv"))
    assert [entry.facts for entry in found] == [{"age": 30.0}, {"sex": "F"}]


def test_what_cannot_be_used_fails_alone(masked, tmp_path):
    here = (f"DATA={tmp_path}",)
    twice = list_subjects(
        manifest=save(tmp_path / "t.json", tree(image_of(), image_of(name="T1w"))), variables=here
    )
    for one in twice:
        with pytest.raises(MismatchError, match="ds1__sub-1__ses-DEFAULT__T1w is listed twice"):
            one.checksum()
    write(tmp_path / "anat.nii.gz", np.resize(np.array([0, 1, 2], np.uint8), VOXELS))
    [one] = list_subjects(manifest=masked, variables=here)
    with pytest.raises(ValuesError, match=r"anat\.nii\.gz: values \[1, 2\] in a mask"):
        one.read()
    (tmp_path / "anat.nii.gz").unlink()
    with pytest.raises(FileError, match=r"anat\.nii\.gz: cannot be read: No such file"):
        one.checksum()


def test_names_that_a_store_does_not_take_are_changed():
    entry = openmind_manifest.Entry("ds1", "sub-1", "ses 1", "a+b.nii.gz", "T1w", "", (), {})
    assert openmind.subject_name(entry) == "ds1__sub-1__ses-1__a-b"
    long = [openmind.subject_name(entry._replace(name=f"{'x' * 200}{n}")) for n in (1, 2)]
    assert len(set(long)) == 2 and {len(name) for name in long} == {128}


def test_a_recipe_names_the_kind(masked, tmp_path):
    [one] = sources.list_subjects(
        {"kind": "openmind", "manifest": masked, "variables": (f"DATA={tmp_path}",)}
    )
    assert one.subject == "ds1__sub-1__ses-DEFAULT__T1w" and one.files()[0].endswith("T1w.nii.gz")


@pytest.mark.slow
def test_a_manifest_of_114570_images_is_listed_in_seconds(tmp_path):
    collection = {"collection_name": "Dataset001_OpenMind", "datasets": {}}
    score = [{"modality": "T1w", "derived_from": None, "image_quality_score": 2.0}]
    for n in range(34_191):
        study = collection["datasets"].setdefault(
            f"ds{n // 50:06d}", {"dataset_info": {"image_quality_score": score}, "subjects": {}}
        )
        masks = {name: f"$DATA/{n}_{name}.nii.gz" for name in ("anonymization_mask", "anatomy_mask")}
        listed = [image_of(name=f"{n}_{k}.nii.gz", associated_masks=masks) for k in range(3 + (n < 11_997))]
        sessions = {"ses-DEFAULT": {"images": listed}}
        study["subjects"][f"sub-{n % 50}"] = {"subject_info": {"age": n % 90}, "sessions": sessions}
    manifest = save(tmp_path / "m.json", collection)
    del collection
    before = time.process_time()
    found = list_subjects(
        manifest=manifest, variables=("DATA=/data",), max_quality_score=2.5, where=("age=0:200",)
    )
    assert time.process_time() - before < 20  # measured 2.5
    assert len(found) == 114_570 and len({one.person for one in found if one.split == "val"}) == 341
