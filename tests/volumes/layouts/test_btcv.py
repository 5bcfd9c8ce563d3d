import pytest

from tests.volumes.layouts.conftest import problems, touch
from ukbob_jax.errors import MismatchError
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
    (tmp_path / "label" / "label0021.nii.gz").unlink()
    touch(tmp_path, "img/scan.nii.gz", "label/label0030.nii.gz", "label/._label0031.nii.gz")
    with pytest.warns(UserWarning, match=r"1 label maps have no image and are left aside: label0030"):
        found = problems(layouts.list_cases("btcv", tmp_path))
    assert not found["img0001"] and "it has no label map" in found["img0021"]
    assert "not img and a number" in found["scan"]
    for path in (tmp_path / "label").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(MismatchError, match="images and labels do not match"):
        layouts.list_cases("btcv", tmp_path)
