import pytest

from tests.volumes.layouts.conftest import touch
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes import layouts


def test_btcv_matches_images_and_labels_by_number(tmp_path):
    touch(
        tmp_path,
        *(f"img/img{n:04d}.nii.gz" for n in (1, 21)),
        *(f"label/label{n:04d}.nii.gz" for n in (1, 21)),
    )
    cases = layouts.list_cases("btcv", tmp_path)
    assert [(case.subject, case.labels["manual"].name) for case in cases] == [
        ("img0001", "label0001.nii.gz"),
        ("img0021", "label0021.nii.gz"),
    ]
    (tmp_path / "label" / "label0021.nii.gz").rename(tmp_path / "label" / "label0002.nii.gz")
    (tmp_path / "label" / "label0001.nii.gz").unlink()
    with pytest.raises(MismatchError, match="do not match for 0001"):
        layouts.list_cases("btcv", tmp_path)
    touch(tmp_path, "img/scan.nii.gz")
    with pytest.raises(FileError, match="scan is not img and a number"):
        layouts.list_cases("btcv", tmp_path)
