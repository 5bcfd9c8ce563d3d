"""What `ukbob check` finds and says; its exit codes are tested in tests/test_cli.py."""

import argparse

import numpy as np
import pytest

from ukbob_jax.commands import check
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume


def parse(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    check.add_options(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def folder(tmp_path):
    for kind in ("i", "l"):
        for name in "ab":
            label = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
            write_volume(tmp_path / kind / f"{name}.nii.gz", Volume(label, np.diag([2.0, 2.0, 2.0, 1.0])))
    return tmp_path


def test_a_scan_is_described_in_one_line_and_flat_channels_are_named():
    array = np.zeros((2, 3, 4, 3), np.int16)
    array[0, 0, 0, 1] = 5
    text = check.describe(Volume(array, np.diag([-1.5, 2, 3.25, 1])))
    assert text == "2 x 3 x 4 voxels, 1.5 x 2 x 3.25 mm, LAS, 3 channels, int16; channels [0, 2] show nothing"


def test_a_file_a_folder_and_a_layout_are_named_alike(folder):
    assert list(check.scans(parse(folder / "i" / "a.nii.gz"))) == ["a"]
    assert list(check.scans(parse(folder / "i"))) == ["a", "b"]
    found = check.scans(parse(folder / "i", "--labels", folder / "l"))
    assert list(found) == ["a", "b"] and found["b"]().shape == (2, 3, 4)  # each reads its own
    assert list(check.scans(parse(folder / "i", "--layout", "folders"))) == ["a", "b"]


def test_unmatched_labels_and_missing_folders_are_refused(folder, capsys):
    (folder / "l" / "b.nii.gz").unlink()
    with pytest.raises(SomeFailed, match="1 of 2 scans cannot be used"):
        check.run(parse(folder / "i", "--labels", folder / "l"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ok   a: ") and second.startswith("BAD  b: ") and "no label map in" in second
    (folder / "l" / "a.nii.gz").unlink()
    with pytest.raises(FileError, match=r"no \.nii or \.nii\.gz file"):
        check.scans(parse(folder / "i", "--labels", folder / "l"))
    with pytest.raises(FileError, match="none: no such file or folder"):
        check.scans(parse(folder / "none"))


def test_unknown_ids_are_bad_and_the_others_are_still_looked_at(folder, capsys):
    label = np.full((2, 3, 4), 2, np.uint8)
    write_volume(folder / "l" / "a.nii.gz", Volume(label // 2, np.diag([2.0, 2.0, 2.0, 1.0])))
    with pytest.raises(SomeFailed, match="1 of 2 scans cannot be used"):
        check.run(parse(folder / "i", "--labels", folder / "l", "--num-classes", 2))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ok   a: 2 x 3 x 4 voxels") and second.startswith("BAD  b: ")
    assert "not among the classes 0 to 1" in second
    check.run(parse(folder / "i", "--labels", folder / "l", "--num-classes", 3))


def test_a_series_is_of_dicom_files_only(folder):
    for words in ((folder / "i",), (folder / "i" / "a.nii.gz",), (folder / "i", "--layout", "folders")):
        with pytest.raises(ConfigError, match="--series goes with a folder of DICOM files"):
            check.scans(parse(*words, "--series", "1.2.3"))
