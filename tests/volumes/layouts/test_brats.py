import pytest

from tests.volumes.layouts.conftest import problems, touch
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes import layouts

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
    touch(tmp_path, *(f"b/b{ending}.nii.gz" for ending in BRATS_NEW if "t2w" not in ending))
    with pytest.raises(MismatchError, match="no file for t2 or t2w; found"):
        layouts.list_cases("brats", tmp_path)


def test_subjects_that_lack_a_file_do_not_stop_the_others(tmp_path):
    touch(tmp_path, *(f"a/a{ending}.nii.gz" for ending in BRATS_NEW))
    touch(tmp_path, *(f"b/b{ending}.nii.gz" for ending in BRATS_NEW[:4]))
    with pytest.warns(
        UserWarning, match=r"1 of 2 subjects have no label map \(seg or gtv\): b\. They are left out"
    ):
        assert [case.subject for case in layouts.list_cases("brats", tmp_path)] == ["a"]
    (tmp_path / "b" / "b-t2w.nii.gz").unlink()
    with pytest.warns(UserWarning, match=r"1 of 2 subjects lack a contrast: b \(t2 or t2w\)"):
        assert [case.subject for case in layouts.list_cases("brats", tmp_path)] == ["a"]


@pytest.mark.parametrize("second", ["b-t1n.nii", "b_t1n.nii.gz", "b-t1.nii.gz", "b-seg.nii"])
def test_two_files_for_one_are_the_problem_of_their_subject_alone(tmp_path, second):
    touch(tmp_path, *(f"{subject}/{subject}{ending}.nii.gz" for subject in "ab" for ending in BRATS_NEW))
    touch(tmp_path / "b", second)
    found = problems(layouts.list_cases("brats", tmp_path))
    assert found["a"] == "" and "b: two files for " in found["b"] and second in found["b"]


@pytest.mark.parametrize(
    "name", ["W39_1998.09.19_Segm.nii", "other-seg.nii.gz", "BraTS20_Training_355_SEG.nii"]
)
def test_the_one_label_map_with_another_name_is_taken(tmp_path, name):
    subject = "BraTS20_Training_355"
    touch(tmp_path / subject, *(f"{subject}{ending}.nii" for ending in BRATS_OLD[:4]), name, f"._{name}")
    [case] = layouts.list_cases("brats", tmp_path)
    assert case.labels["manual"].name == name
    touch(tmp_path / subject, "second_seg.nii")
    [case] = layouts.list_cases("brats", tmp_path)  # a label map of the subject's own name wins over others
    assert bool(case.labels) == name.startswith(subject)


def test_meningioma_before_radiotherapy_has_one_contrast_and_a_gross_volume(tmp_path):
    for subject in ("BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001-2"):
        touch(tmp_path, f"{subject}/{subject}_t1c.nii.gz", f"{subject}/{subject}_gtv.nii.gz")
    found = layouts.list_cases("brats", tmp_path)
    assert [(case.person, len(case.images), case.labels["manual"].name) for case in found] == [
        ("BraTS-MEN-RT-0001", 1, f"BraTS-MEN-RT-0001-{visit}_gtv.nii.gz") for visit in (1, 2)
    ]
