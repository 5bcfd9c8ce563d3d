import pytest

from tests.volumes.layouts.conftest import touch
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
    touch(tmp_path, *(f"a/a{ending}.nii.gz" for ending in BRATS_NEW))
    touch(tmp_path, *(f"b/b{ending}.nii.gz" for ending in BRATS_NEW[:4]))
    with pytest.raises(MismatchError, match="1 of 2 subjects have no seg: b"):
        layouts.list_cases("brats", tmp_path)
    touch(tmp_path, "b/b-seg.nii.gz")
    (tmp_path / "b" / "b-t2w.nii.gz").unlink()
    with pytest.raises(MismatchError, match="no file for t2 or t2w; found"):
        layouts.list_cases("brats", tmp_path)
