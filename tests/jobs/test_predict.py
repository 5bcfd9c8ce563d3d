"""Which scans the job takes; labelling them is tested in tests/inference/test_predict_scans.py and tests/test_main.py."""

import pytest

from ukbob_jax.errors import ConfigError, EmptyError, FileError
from ukbob_jax.jobs import predict


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_file_is_one_scan_and_a_folder_all_of_its_scans(tmp_path):
    touch(tmp_path, "b.nii", "a.nii.gz", "notes.txt")
    assert predict.inputs(str(tmp_path / "b.nii")) == {"b": tmp_path / "b.nii"}
    found = predict.inputs(str(tmp_path))
    assert list(found.items()) == [("a", tmp_path / "a.nii.gz"), ("b", tmp_path / "b.nii")]


def test_a_layout_gives_the_contrasts_of_each_subject_in_order(tmp_path):
    touch(tmp_path, *(f"imagesTr/s_000{c}.nii.gz" for c in (1, 0)), "labelsTr/s.nii.gz")
    found = predict.inputs(str(tmp_path), "nnunet")
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "s": ["s_0000.nii.gz", "s_0001.nii.gz"]
    }


def test_missing_inputs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.predict\.inputs is empty"):
        predict.inputs("")
    with pytest.raises(ConfigError, match="'dicom' is not known"):
        predict.inputs(str(tmp_path), "dicom")
    with pytest.raises(FileError, match="none: no such folder"):
        predict.inputs(str(tmp_path / "none"))
    with pytest.raises(EmptyError, match=r"no \.nii or \.nii\.gz file"):
        predict.inputs(str(tmp_path))
