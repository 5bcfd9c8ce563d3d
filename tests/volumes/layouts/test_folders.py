import pytest

from tests.volumes.layouts.conftest import problems, table, touch
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes import layouts


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
        (
            ["i/a.nii.gz", "l/b.nii.gz"],
            MismatchError,
            r"1 images \(a\), 1 label maps \(b\.nii\.gz\)\. A label map is named",
        ),
    ],
)
def test_folders_that_do_not_match_are_refused(files, error, message, tmp_path):
    touch(tmp_path, *files)
    with pytest.raises(error, match=message):
        layouts.list_cases("folders", tmp_path / "i", tmp_path / "l")


@pytest.mark.parametrize(
    "files, message",
    [
        (["i/a.nii.gz"], "a.nii.gz: it has no label map"),
        (
            ["i/a.nii.gz", "l/a.nii.gz", "l/a_seg.nii.gz"],
            "several label maps: a.nii.gz, a_seg.nii.gz; keep one",
        ),
        (["i/a.nii.gz", "i/a.nii", "l/a.nii.gz"], "two files for a: a.nii, a.nii.gz; keep one"),
        (["i/a.nii.gz", "l/a.nii.gz", "l/a.nii"], "several label maps: a.nii, a.nii.gz; keep one"),
    ],
)
def test_a_subject_that_does_not_match_has_a_problem_and_the_others_none(files, message, tmp_path):
    touch(tmp_path, *files, "i/b.nii.gz", "l/b.nii.gz")
    found = problems(layouts.list_cases("folders", tmp_path / "i", tmp_path / "l"))
    assert list(found) == ["a", "b"] and message in found["a"] and not found["b"]


def test_label_maps_without_an_image_are_left_aside_with_a_warning(tmp_path):
    touch(tmp_path, "i/a.nii.gz", "l/a.nii.gz", "l/b.nii.gz", "l/._b.nii.gz")
    with pytest.warns(UserWarning, match=r"1 label maps have no image and are left aside: b\.nii\.gz"):
        assert problems(layouts.list_cases("folders", tmp_path / "i", tmp_path / "l")) == {"a": ""}


def test_another_ending_chooses_among_label_maps_beside_an_image(tmp_path):
    touch(
        tmp_path, *[f"{name}{end}.nii.gz" for name in "ab" for end in ("", "_seg", "_seg-manual")], "c.nii.gz"
    )
    assert table(layouts.list_cases("folders", tmp_path, tmp_path, ending="_seg-manual")) == [
        (name, [f"{name}.nii.gz"], {"manual": f"{name}_seg-manual.nii.gz"}, "") for name in "ab"
    ]
    with pytest.raises(MismatchError, match=r"named like its image with _gt after it; ending="):
        layouts.list_cases("folders", tmp_path, tmp_path, ending="_gt")
