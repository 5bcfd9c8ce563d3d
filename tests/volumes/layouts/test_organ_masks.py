import pytest

from tests.volumes.layouts.conftest import table, touch
from ukbob_jax.errors import FileError, MismatchError
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


def test_a_subject_with_two_scans_is_refused(tmp_path):
    touch(tmp_path, "s1/ct.nii.gz", "s1/mri.nii.gz", "s1/segmentations/liver.nii.gz")
    with pytest.raises(MismatchError, match=r"s1 with ct.nii.gz and mri.nii.gz; leave one"):
        layouts.list_cases("organ_masks", tmp_path)


def test_subjects_without_scan_or_masks_are_refused(tmp_path):
    with pytest.raises(FileError, match="no subject folder"):
        layouts.list_cases("organ_masks", tmp_path)
    with pytest.raises(FileError, match=r"1 of 2 files are missing: .*segmentations"):
        layouts.list_cases("organ_masks", touch(tmp_path, "s1/ct.nii.gz"))
