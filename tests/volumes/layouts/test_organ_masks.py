import pytest

from tests.volumes.layouts.conftest import problems, table, touch
from ukbob_jax.errors import FileError
from ukbob_jax.volumes import layouts


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


def test_the_table_of_splits_may_be_in_the_letters_of_windows(tmp_path):
    touch(tmp_path, "s1/ct.nii.gz", "s1/segmentations/liver.nii.gz")
    (tmp_path / "meta.csv").write_bytes("image_id,clinic,split\r\ns1,Köln,val\r\n".encode("cp1252"))
    assert layouts.list_cases("organ_masks", tmp_path)[0].split == "val"


def test_a_subject_with_two_scans_or_without_masks_has_a_problem(tmp_path):
    touch(tmp_path, "s1/ct.nii.gz", "s1/mri.nii.gz", "s1/segmentations/liver.nii.gz", "s2/ct.nii.gz")
    touch(tmp_path, "s3/ct.nii.gz", "s3/segmentations/liver.nii.gz", ".s4/ct.nii.gz")
    found = problems(layouts.list_cases("organ_masks", tmp_path))
    assert list(found) == ["s1", "s2", "s3"] and not found["s3"]
    assert "with ct.nii.gz and mri.nii.gz; leave one" in found["s1"]
    assert "no folder segmentations" in found["s2"]


def test_folders_without_subjects_are_refused(tmp_path):
    with pytest.raises(FileError, match="no subject folder"):
        layouts.list_cases("organ_masks", tmp_path)
