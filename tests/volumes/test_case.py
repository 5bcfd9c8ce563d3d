import pathlib

import pytest

from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.volumes import case


@pytest.mark.parametrize(
    "name, stem", [("a.nii", "a"), ("a.b.nii.gz", "a.b"), ("A.NII.GZ", "A"), ("a.gz", "a.gz"), ("nii", "nii")]
)
def test_the_stem_drops_the_ending_of_a_scan_only(name, stem):
    assert case.stem(pathlib.Path("folder.nii", name)) == stem
    assert case.is_scan(name) == (stem != name)


def test_scans_are_sorted_and_hidden_files_are_left_out(tmp_path):
    for name in ("b.nii", "a.nii.gz", ".c.nii.gz", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert list(case.scans(tmp_path).items()) == [("a", tmp_path / "a.nii.gz"), ("b", tmp_path / "b.nii")]


def test_folders_without_usable_scans_are_refused(tmp_path):
    with pytest.raises(FileError, match="none: no such folder"):
        case.scans(tmp_path / "none")
    with pytest.raises(EmptyError, match=r"no \.nii or \.nii\.gz file"):
        case.scans(tmp_path)
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(MismatchError, match=r"two files for a: a\.nii and a\.nii\.gz; keep one"):
        case.scans(tmp_path)


def test_missing_files_are_counted_and_the_first_few_named(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    case.check_present([tmp_path / "a"], tmp_path)
    with pytest.raises(FileError, match=r"4 of 5 files are missing: .*/b, .*/c, .*/d and 1 more\."):
        case.check_present([tmp_path / name for name in "abcde"], tmp_path)


def test_a_list_is_cut_after_three_names():
    assert case.listed(["a", 2, "c"]) == "a, 2, c"
    assert case.listed("abcdef") == "a, b, c and 3 more"
