import pytest

from tests.volumes.layouts.conftest import touch
from ukbob_jax.errors import ConfigError
from ukbob_jax.volumes import layouts


def test_the_layouts_are_the_modules_of_the_folder():
    assert layouts.names() == ["bids", "brats", "btcv", "decathlon", "folders", "nnunet", "organ_masks"]


def test_an_unknown_layout_or_option_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'msd' is not known; expected one of bids, brats, btcv, decathlon"):
        layouts.list_cases("msd", tmp_path)
    with pytest.raises(ConfigError, match="'decathlon' takes root, modality, fold: missing"):
        layouts.list_cases("decathlon", images=tmp_path)


def test_selectors_are_what_layouts_take_beside_their_paths():
    found = layouts.selectors("root")
    assert found.keys() >= {"desc", "space", "pipeline", "modality", "fold"}
    assert not found.keys() & {"root", "images", "labels"} and not any(found.values())
    assert layouts.selectors("images") == {"ending": ""}


def problems(layout, *args):
    """Subject -> problem of those that cannot be used; the others must be there too."""
    cases = layouts.list_cases(layout, *args)
    assert any(not case.problem for case in cases)
    return {case.subject: case.problem for case in cases if case.problem}


def test_a_subject_that_cannot_be_used_does_not_refuse_the_others(tmp_path):
    touch(
        tmp_path / "n",
        *[f"imagesTr/{n}_0000.nii" for n in "abe"],
        "imagesTr/a_0001.nii",
        "imagesTr/e_0001.nii",
    )
    touch(tmp_path / "n", "imagesTr/c_0001.nii", "imagesTr/d_0000.nii", "imagesTr/d_0001.nii")
    touch(tmp_path / "n", *[f"labelsTr/{n}.nii" for n in "abce"])
    found = problems("nnunet", tmp_path / "n")
    assert list(found) == ["b", "c", "d"] and "b has 1 channels, most subjects have 2" in found["b"]
    assert "0000 is missing" in found["c"] and "no label map for d" in found["d"]
    touch(tmp_path / "s", *[f"sub-{n}/anat/sub-{n}_T1w.nii" for n in (1, 2)], "sub-1/anat/sub-1_T2w.nii")
    cases = layouts.list_cases("bids", tmp_path / "s", contrasts="T1w,T2w")
    assert [bool(case.problem) for case in cases] == [False, True]
