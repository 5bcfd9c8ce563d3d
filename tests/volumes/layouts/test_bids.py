import pytest

from tests.volumes.layouts.conftest import table, touch
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes import layouts


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
