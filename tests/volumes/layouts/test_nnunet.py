import json

import pytest

from tests.volumes.layouts.conftest import problems, table, touch
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes import layouts
from ukbob_jax.volumes.case import Description


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
        (["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"], MismatchError, "channel number"),
        (["imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"], MismatchError, "0000 is missing"),
        (["imagesTr/a_0000.nii.gz", "labelsTr/b.nii.gz"], MismatchError, r"do not match for a, b\."),
        (["imagesTr/a_0000.nii.gz"], FileError, "labelsTr: no such folder"),
        (
            ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/a_0000.nii.gz"],
            MismatchError,
            "both in imagesTr and in imagesTs: a",
        ),
        (["labelsTr/a.nii.gz"], FileError, "imagesTr: no such folder"),
    ],
)
def test_an_nnunet_folder_that_does_not_match_is_refused(files, error, message, tmp_path):
    with pytest.raises(error, match=message):
        layouts.list_cases("nnunet", touch(tmp_path, *files))


def test_a_subject_that_lacks_labels_or_channels_has_a_problem_and_the_others_none(tmp_path):
    touch(tmp_path, *(f"imagesTr/{n}_000{c}.nii.gz" for n in "abc" for c in (0, 1) if (n, c) != ("b", 1)))
    touch(tmp_path, *(f"labelsTr/{n}.nii.gz" for n in ("a", "b", "z", "._c")))
    with pytest.warns(UserWarning, match=r"1 label maps have no image and are left aside: z\.nii\.gz"):
        found = problems(layouts.list_cases("nnunet", tmp_path))
    assert list(found) == ["a", "b", "c"] and not found["a"]
    assert "b has 1 channels, most subjects have 2" in found["b"] and "no label map for c" in found["c"]


def test_an_image_without_a_channel_number_is_the_problem_of_its_subject_alone(tmp_path):
    touch(tmp_path, *(f"imagesTr/{name}.nii.gz" for name in ("a_0000", "b_0000", "b", "c")))
    touch(tmp_path, *(f"labelsTr/{name}.nii.gz" for name in "abc"))
    cases = layouts.list_cases("nnunet", tmp_path)
    assert [case.subject for case in cases if not case.problem] == ["a"]
    found = problems(cases)
    assert all(f"imagesTr/{n}.nii.gz: the name does not end in a channel" in found[n] for n in "bc")


def test_two_files_for_one_channel_or_label_are_the_problem_of_their_subject(tmp_path):
    touch(tmp_path, *(f"imagesTr/{n}_0000.nii.gz" for n in "abc"), *(f"labelsTr/{n}.nii.gz" for n in "abc"))
    touch(tmp_path, "imagesTr/b_0000.nii", "labelsTr/c.nii")
    found = problems(layouts.list_cases("nnunet", tmp_path))
    assert not found["a"] and "two files for b_0000" in found["b"] and "two files for c" in found["c"]


def test_empty_folders_of_an_nnunet_test_set_do_not_count(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "imagesTs").mkdir()
    assert [case.subject for case in layouts.list_cases("nnunet", tmp_path)] == ["a"]
    touch(tmp_path, "imagesTs/b_0000.nii.gz")
    (tmp_path / "labelsTs").mkdir()
    assert [case.labels for case in layouts.list_cases("nnunet", tmp_path)][1] == {}


def test_a_dataset_json_names_channels_labels_and_what_is_not_annotated(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    said = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}}
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    [case] = layouts.list_cases("nnunet", tmp_path)
    assert case.description == Description(
        modality="CT",
        units="HU",
        contrasts=("CT",),
        label_names={"manual": {0: "background", 1: "liver", 2: "spleen"}},
        ignored={"manual": (3,)},
    )
    for wrong, message in (
        (
            {"labels": {"background": 0, "whole": [1, 2]}},
            "whole are regions, and regions_class_order is None",
        ),
        ({"labels": {"background": 0, "whole": [1, 2]}, "regions_class_order": [3]}, r"order is \[3\]"),
        ({"labels": {"liver": []}}, "or a list of ids for a region"),
        ({"dataset": {"a": {}}}, "\"dataset\" is not .*'images'"),
        ({"dataset": {"a": {"images": "x.nii", "label": "x.nii"}}}, "images is a text"),
        ({"dataset": {"a": {"images": ["x.nii"], "label": "x.nii"}}}, "2 of 2 files are missing"),
        ({"file_ending": ".png"}, r"file_ending '\.png' is not read; expected \.nii\.gz"),
        ({"file_ending": ".nrrd"}, r"imagesTr: no file ends in \.nrrd"),
    ):
        (tmp_path / "dataset.json").write_text(json.dumps({**said, **wrong}))
        with pytest.raises(FileError, match=message):
            layouts.list_cases("nnunet", tmp_path)


REGIONS = {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}


def test_labels_that_are_lists_of_ids_become_regions_and_name_the_ids(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    said = {"channel_names": {"0": "T1 (Gd)"}, "labels": REGIONS, "regions_class_order": [1, 2, 3]}
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    with pytest.warns(
        UserWarning, match=r"regions: whole tumour \[1, 2, 3\], core .*config\.regions=dataset"
    ):
        [case] = layouts.list_cases("nnunet", tmp_path)
    regions = case.description.regions["manual"]
    assert regions.names == ("whole tumour", "core", "enhancing") and regions.region_labels == (1, 2, 3)
    assert regions.values == ((1, 2, 3), (2, 3), (3,)) and case.description.ignored == {"manual": (4,)}
    assert case.description.label_names["manual"] == {
        0: "background",
        1: "whole tumour",
        2: "core",
        3: "enhancing",
    }
    assert case.description.contrasts == ("T1_Gd",)


def test_a_data_set_may_list_files_anywhere_and_name_their_ending(tmp_path):
    elsewhere = touch(tmp_path / "elsewhere", "x.mha", "y.mha", "x_seg.mha")
    touch(tmp_path / "set", "imagesTs/b_0000.mha", "imagesTs/b_0001.mha", "imagesTs/b_0001.nii.gz")
    images = [str(elsewhere / "x.mha"), "../elsewhere/y.mha"]
    said = {
        "file_ending": ".mha",
        "dataset": {"x": {"images": images, "label": str(elsewhere / "x_seg.mha")}},
    }
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(said))
    assert table(layouts.list_cases("nnunet", tmp_path / "set")) == [
        ("x", ["x.mha", "y.mha"], {"manual": "x_seg.mha"}, "train"),
        ("b", ["b_0000.mha", "b_0001.mha"], {}, "test"),
    ]
