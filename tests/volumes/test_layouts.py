import json
import pathlib

import pytest

from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.volumes import dataset_json, layouts


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def dataset(root: pathlib.Path, **fields) -> pathlib.Path:
    (root / "dataset.json").write_text(json.dumps(fields))
    return root


def entry(name: str) -> dict:
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


def table(cases: list) -> list[tuple]:
    """Subject, image names, label names by set, split."""
    return [
        (c.subject, [p.name for p in c.images], {k: p.name for k, p in c.labels.items()}, c.split)
        for c in cases
    ]


def test_the_layouts_are_the_modules_of_the_folder():
    assert layouts.names() == ["bids", "brats", "btcv", "decathlon", "folders", "nnunet", "organ_masks"]


def test_an_unknown_layout_or_option_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'msd' is not known; expected one of bids, brats, btcv, decathlon"):
        layouts.list_cases("msd", tmp_path)
    with pytest.raises(ConfigError, match="'decathlon' takes root: missing"):
        layouts.list_cases("decathlon", images=tmp_path)


# -- folders


def test_images_and_labels_of_two_folders_are_matched_by_name(tmp_path):
    touch(
        tmp_path, "i/b.nii", "i/a.nii.gz", "i/.hidden.nii.gz", "i/notes.txt", "l/a.nii.gz", "l/b_seg.nii.gz"
    )
    assert table(layouts.list_cases("folders", tmp_path / "i", tmp_path / "l")) == [
        ("a", ["a.nii.gz"], {"manual": "a.nii.gz"}, ""),
        ("b", ["b.nii"], {"manual": "b_seg.nii.gz"}, ""),
    ]
    assert table(layouts.list_cases("folders", images=str(tmp_path / "i")))[0] == ("a", ["a.nii.gz"], {}, "")


def test_images_and_labels_may_share_a_folder(tmp_path):
    touch(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    assert table(layouts.list_cases("folders", tmp_path, tmp_path)) == [
        ("a", ["a.nii.gz"], {"manual": "a_seg.nii.gz"}, ""),
        ("b", ["b.nii.gz"], {"manual": "b_seg.nii.gz"}, ""),
    ]


def test_one_image_and_one_label_belong_together_whatever_their_names(tmp_path):
    touch(tmp_path, "scan.nii.gz", "organs.nii.gz")
    found = layouts.list_cases("folders", tmp_path / "scan.nii.gz", tmp_path / "organs.nii.gz")
    assert table(found) == [("scan", ["scan.nii.gz"], {"manual": "organs.nii.gz"}, "")]


@pytest.mark.parametrize(
    "files, error, message",
    [
        (["l/a.nii.gz"], FileError, "no such file or folder"),
        (["i/a.txt", "l/a.nii.gz"], FileError, "no .nii or .nii.gz file"),
        (["i/a.nii.gz", "i/b.nii.gz", "l/a.nii.gz"], MismatchError, r"1 of 2 images have no label.*\(b\)"),
        (
            ["i/a.nii.gz", "l/a.nii.gz", "l/b.nii.gz"],
            MismatchError,
            r"1 label maps have no image \(b\.nii\.gz\)",
        ),
        (["i/a.nii.gz", "i/a.nii", "l/a.nii.gz"], MismatchError, "two files for a"),
        (["i/a.nii.gz", "l/a.nii.gz", "l/a_seg.nii.gz"], MismatchError, r"or several \(a\)"),
    ],
)
def test_folders_that_do_not_match_are_refused(files, error, message, tmp_path):
    touch(tmp_path, *files)
    with pytest.raises(error, match=message):
        layouts.list_cases("folders", tmp_path / "i", tmp_path / "l")


# -- decathlon


def test_the_decathlon_lists_training_validation_and_test(tmp_path):
    names = [f"{f}/{n}.nii.gz" for n in "ab" for f in ("imagesTr", "labelsTr")]
    touch(tmp_path, *names, "imagesTs/c.nii.gz")
    dataset(tmp_path, training=[entry("b")], validation=[entry("a")], test=["./imagesTs/c.nii.gz"])
    want = [
        ("b", ["b.nii.gz"], {"manual": "b.nii.gz"}, "train"),
        ("a", ["a.nii.gz"], {"manual": "a.nii.gz"}, "val"),
        ("c", ["c.nii.gz"], {}, "test"),
    ]
    assert table(layouts.list_cases("decathlon", tmp_path)) == want
    assert table(layouts.list_cases("decathlon", tmp_path / "dataset.json")) == want
    dataset(tmp_path, training=[entry("b")], validation=[entry("a")], testing=["./imagesTs/c.nii.gz"])
    assert table(layouts.list_cases("decathlon", tmp_path)) == want


@pytest.mark.parametrize(
    "fields, contrasts, labels",
    [
        (
            {"modality": {"0": "T1w", "1": "T2w"}, "labels": {"0": "background", "1": "liver"}},
            ("T1w", "T2w"),
            "liver",
        ),
        (
            {"channel_names": {"1": "fat", "0": "water"}, "labels": {"background": 0, "a": 1}},
            ("water", "fat"),
            "a",
        ),
    ],
)
def test_names_of_channels_and_labels_are_read_in_both_spellings(fields, contrasts, labels, tmp_path):
    found = dataset_json.read(dataset(tmp_path, **fields))
    assert found.contrasts == contrasts
    assert found.labels == {0: "background", 1: labels}


def test_a_dataset_may_be_named_relative_to_where_one_is(tmp_path, monkeypatch):
    touch(dataset(tmp_path, training=[entry("a")]), "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    monkeypatch.chdir(tmp_path)
    for root in (".", "dataset.json"):
        assert [case.subject for case in layouts.list_cases("decathlon", root)] == ["a"]
    dataset(tmp_path, training=[{"image": "/etc/passwd.nii.gz"}])
    with pytest.raises(FileError, match="leads out of the dataset's folder"):
        layouts.list_cases("decathlon", ".")


@pytest.mark.parametrize("name", ["../../etc/passwd.nii.gz", "/etc/passwd.nii.gz", "imagesTr/../../x.nii.gz"])
def test_a_path_out_of_the_dataset_is_refused(name, tmp_path):
    with pytest.raises(FileError, match="leads out of the dataset's folder"):
        layouts.list_cases("decathlon", dataset(tmp_path, training=[{"image": name}]))


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({}, FileError, "training.* missing or empty"),
        ({"training": []}, FileError, "training.* missing or empty"),
        ({"training": {"a": 1}}, FileError, "expected a list"),
        ({"training": [{"label": "a.nii.gz"}]}, FileError, "entry 0"),
        ({"training": [{"image": []}]}, FileError, "empty image list"),
        ({"training": [{"image": 3}]}, FileError, "expected a file name, found 3"),
        ({"training": [entry(n) for n in "abcdef"]}, FileError, "10 of 12 files are missing: .* and 7 more"),
        ({"training": [entry("a"), entry("a")]}, MismatchError, "more than once: a"),
        ({"training": [entry("a")], "labels": {"liver": [1, 2]}}, FileError, "regions"),
        ({"training": [entry("a")], "modality": ["MR"]}, FileError, "channel names"),
    ],
)
def test_a_dataset_json_that_cannot_be_used_is_refused(fields, error, message, tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(error, match=message):
        layouts.list_cases("decathlon", dataset(tmp_path, **fields))


def test_a_missing_or_broken_dataset_json_is_named(tmp_path):
    with pytest.raises(FileError, match=r"dataset\.json: no such file"):
        layouts.list_cases("decathlon", tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(FileError, match=r"dataset\.json: not readable as JSON"):
        layouts.list_cases("decathlon", tmp_path)


# -- nnU-Net


def test_nnunet_channels_are_separate_files(tmp_path):
    touch(tmp_path, *[f"imagesTr/{n}_000{c}.nii.gz" for n in ("a", "b_1") for c in (0, 1)])
    touch(
        tmp_path,
        "labelsTr/a.nii.gz",
        "labelsTr/b_1.nii.gz",
        "imagesTs/c_0000.nii.gz",
        "imagesTs/c_0001.nii.gz",
    )
    assert table(layouts.list_cases("nnunet", tmp_path)) == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"], {"manual": "a.nii.gz"}, "train"),
        ("b_1", ["b_1_0000.nii.gz", "b_1_0001.nii.gz"], {"manual": "b_1.nii.gz"}, "train"),
        ("c", ["c_0000.nii.gz", "c_0001.nii.gz"], {}, "test"),
    ]


@pytest.mark.parametrize(
    "files, error, message",
    [
        (["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"], FileError, "channel number"),
        (["imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"], MismatchError, "0000 is missing"),
        (["imagesTr/a_0000.nii.gz", "labelsTr/b.nii.gz"], MismatchError, "do not match for a, b"),
        (["imagesTr/a_0000.nii.gz"], FileError, "labelsTr: no such folder"),
        (
            ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/a_0000.nii.gz"],
            MismatchError,
            "both in imagesTr and in imagesTs: a",
        ),
        (["labelsTr/a.nii.gz"], FileError, "imagesTr: no such folder"),
        (
            [
                *(f"imagesTr/{n}_0000.nii.gz" for n in "ab"),
                "imagesTr/a_0001.nii.gz",
                "labelsTr/a.nii",
                "labelsTr/b.nii",
            ],
            MismatchError,
            "fewer than 2 channels for b",
        ),
    ],
)
def test_an_nnunet_folder_that_does_not_match_is_refused(files, error, message, tmp_path):
    with pytest.raises(error, match=message):
        layouts.list_cases("nnunet", touch(tmp_path, *files))


def test_empty_folders_of_an_nnunet_test_set_do_not_count(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "imagesTs").mkdir()
    assert [case.subject for case in layouts.list_cases("nnunet", tmp_path)] == ["a"]
    touch(tmp_path, "imagesTs/b_0000.nii.gz")
    (tmp_path / "labelsTs").mkdir()
    assert [case.labels for case in layouts.list_cases("nnunet", tmp_path)][1] == {}


# -- one mask per organ


def test_subjects_with_masks_take_their_split_from_the_table(tmp_path):
    touch(tmp_path, *[f"{s}/{f}" for s in ("s1", "s2") for f in ("segmentations/liver.nii.gz", "notes.txt")])
    touch(tmp_path, "s1/ct.nii.gz", "s2/mri.nii.gz")
    (tmp_path / "meta.csv").write_text("\ufeffimage_id;age;split\ns1;50;train\ns2;60;test\n")
    assert table(layouts.list_cases("organ_masks", tmp_path)) == [
        ("s1", ["ct.nii.gz"], {"manual": "segmentations"}, "train"),
        ("s2", ["mri.nii.gz"], {"manual": "segmentations"}, "test"),
    ]


def test_the_table_of_splits_may_have_commas(tmp_path):
    touch(tmp_path, "s1/ct.nii.gz", "s1/segmentations/liver.nii.gz")
    (tmp_path / "meta.csv").write_text("image_id,age,split\ns1,50,val\n")
    assert layouts.list_cases("organ_masks", tmp_path)[0].split == "val"


def test_a_subject_with_two_scans_is_refused(tmp_path):
    touch(tmp_path, "s1/ct.nii.gz", "s1/mri.nii.gz", "s1/segmentations/liver.nii.gz")
    with pytest.raises(MismatchError, match=r"s1 with ct.nii.gz and mri.nii.gz; leave one"):
        layouts.list_cases("organ_masks", tmp_path)


def test_subjects_without_scan_or_masks_are_refused(tmp_path):
    with pytest.raises(FileError, match="no subject folder"):
        layouts.list_cases("organ_masks", tmp_path)
    with pytest.raises(FileError, match=r"1 of 1 files are missing: .*segmentations"):
        layouts.list_cases("organ_masks", touch(tmp_path, "s1/ct.nii.gz"))


# -- BIDS


def test_bids_contrasts_are_channels_and_pipelines_are_label_sets(tmp_path):
    anat = "sub-01/ses-1/anat/sub-01_ses-1"
    touch(tmp_path, f"{anat}_acq-water_T1w.nii.gz", f"{anat}_acq-fat_T1w.nii.gz", f"{anat}_T2w.nii.gz")
    touch(tmp_path, *[f"derivatives/{p}/{anat}_dseg.nii.gz" for p in ("manual", "model")])
    found = layouts.list_cases("bids", tmp_path, contrasts=("acq-water_T1w", "acq-fat_T1w"))
    name = "sub-01_ses-1"
    assert table(found) == [
        (
            name,
            [f"{name}_acq-water_T1w.nii.gz", f"{name}_acq-fat_T1w.nii.gz"],
            {"manual": f"{name}_dseg.nii.gz", "model": f"{name}_dseg.nii.gz"},
            "",
        )
    ]


def test_bids_labels_go_to_the_run_they_name(tmp_path):
    touch(tmp_path, *[f"sub-1/anat/sub-1{run}_T1w.nii.gz" for run in ("", "_run-2")])
    touch(tmp_path, *[f"derivatives/m/sub-1/anat/sub-1{run}_dseg.nii.gz" for run in ("", "_run-2")])
    assert [(c.subject, c.labels["m"].name) for c in layouts.list_cases("bids", tmp_path)] == [
        ("sub-1", "sub-1_dseg.nii.gz"),
        ("sub-1_run-2", "sub-1_run-2_dseg.nii.gz"),
    ]


def test_bids_sessions_that_name_one_file_are_refused(tmp_path):
    touch(tmp_path, "sub-1/ses-1/anat/sub-1_T1w.nii.gz", "sub-1/ses-2/anat/sub-1_T1w.nii.gz")
    with pytest.raises(MismatchError, match=r"in more than one folder: sub-1\. Put the session"):
        layouts.list_cases("bids", tmp_path)


def test_a_bids_folder_that_does_not_match_is_refused(tmp_path):
    with pytest.raises(FileError, match="no such folder"):
        layouts.list_cases("bids", tmp_path / "none")
    with pytest.raises(FileError, match="ends in T1w"):
        layouts.list_cases("bids", tmp_path)
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz")
    with pytest.raises(MismatchError, match="not all of T1w, T2w for sub-1"):
        layouts.list_cases("bids", tmp_path, contrasts=("T1w", "T2w"))
    touch(tmp_path, *[f"derivatives/m/sub-1/anat/sub-1{s}_dseg.nii.gz" for s in ("", "_desc-b")])
    with pytest.raises(MismatchError, match="two files for m"):
        layouts.list_cases("bids", tmp_path)


# -- brats, btcv

BRATS_OLD = ("_t1", "_t1ce", "_t2", "_flair", "_seg")
BRATS_NEW = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")


@pytest.mark.parametrize("endings", [BRATS_OLD, BRATS_NEW])
def test_brats_lists_contrasts_in_one_order_in_both_spellings(tmp_path, endings):
    for subject in ("BraTS-GLI-00002-000", "BraTS-GLI-00000-000"):
        touch(tmp_path, *(f"{subject}/{subject}{ending}.nii.gz" for ending in sorted(endings)))
    touch(tmp_path, "name_mapping.csv")
    cases = layouts.list_cases("brats", tmp_path)
    assert [case.subject for case in cases] == ["BraTS-GLI-00000-000", "BraTS-GLI-00002-000"]
    subject = cases[0].subject
    assert [path.name for path in cases[0].images] == [f"{subject}{ending}.nii.gz" for ending in endings[:4]]
    assert cases[0].labels["manual"].name == f"{subject}{endings[4]}.nii.gz"


def test_brats_refuses_missing_contrasts_and_folders_without_subjects(tmp_path):
    with pytest.raises(FileError, match="no folder SUBJECT"):
        layouts.list_cases("brats", tmp_path)
    touch(tmp_path, *(f"a/a{ending}.nii.gz" for ending in BRATS_NEW))
    touch(tmp_path, *(f"b/b{ending}.nii.gz" for ending in BRATS_NEW[:4]))
    with pytest.raises(MismatchError, match="1 of 2 subjects have no seg: b"):
        layouts.list_cases("brats", tmp_path)
    touch(tmp_path, "b/b-seg.nii.gz")
    (tmp_path / "b" / "b-t2w.nii.gz").unlink()
    with pytest.raises(MismatchError, match="no file for t2 or t2w; found"):
        layouts.list_cases("brats", tmp_path)


def test_btcv_matches_images_and_labels_by_number(tmp_path):
    touch(
        tmp_path,
        *(f"img/img{n:04d}.nii.gz" for n in (1, 21)),
        *(f"label/label{n:04d}.nii.gz" for n in (1, 21)),
    )
    cases = layouts.list_cases("btcv", tmp_path)
    assert [(case.subject, case.labels["manual"].name) for case in cases] == [
        ("img0001", "label0001.nii.gz"),
        ("img0021", "label0021.nii.gz"),
    ]
    (tmp_path / "label" / "label0021.nii.gz").unlink()
    with pytest.raises(MismatchError, match="do not match for 0021"):
        layouts.list_cases("btcv", tmp_path)
    touch(tmp_path, "img/scan.nii.gz")
    with pytest.raises(FileError, match="scan is not img and a number"):
        layouts.list_cases("btcv", tmp_path)
