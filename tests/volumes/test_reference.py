"""Reorientation and resampling of real scans against MONAI, nibabel and SimpleITK, see reference/nifti/README.md."""

import json

import numpy as np
import pytest

import ukbob_jax as bob
from tests.volumes.malformed import counts

pytestmark = pytest.mark.reference
IMAGES = (
    *("ts_mr_sm.nii.gz", "ts_ct_sm.nii.gz", "tpt_mr_spine.nii.gz", "mni152_t1_3mm.nii.gz"),
    *("nib_anatomical_be.nii", "nib_functional_scaled.nii", "dwi_small_64D.nii.gz"),
)
OBLIQUE = "dwi_small_64D.nii.gz"
LABELS = ("ts_mr_sm_seg.nii.gz", "ts_ct_sm_seg.nii.gz", "tpt_mr_spine_seg.nii.gz", "mni152_seg_3mm.nii.gz")


@pytest.fixture(scope="module")
def expected(reference) -> dict:
    return json.loads((reference / "nifti" / "nifti.json").read_text())


def check_array(array: np.ndarray, checksum: dict, samples: list, tolerance: float) -> None:
    """Mean, spread and extremes of all voxels, and single voxels that pin down where each one lies."""
    array = array.astype(np.float64)
    assert list(array.shape) == checksum["shape"]
    for name in ("mean", "std", "min", "max"):
        assert getattr(array, name)() == pytest.approx(checksum[name], abs=tolerance), name
    for index, value in samples:
        assert array[tuple(index)] == pytest.approx(value, abs=tolerance), index


@pytest.mark.parametrize("name", IMAGES)
def test_reads_an_image_as_nibabel_does(name, reference, expected):
    volume = bob.read_volume(reference / "volumes" / name, channels=True)
    file = expected[name]["file"]
    np.testing.assert_allclose(volume.affine, file["affine"], rtol=0, atol=1e-5)
    assert volume.orientation == file["axcodes"]
    assert volume.codes == (file["sform_code"], file["qform_code"])
    array = volume.array if len(file["shape"]) == 4 else volume.array[..., 0]
    check_array(array, file["data"], [], 1e-6 * abs(file["data"]["max"]))


@pytest.mark.parametrize("name", IMAGES)
def test_reorients_an_image_as_monai_does(name, reference, expected):
    volume = bob.read_volume(reference / "volumes" / name, channels=True).to_ras()
    ras = expected[name]["ras"]
    np.testing.assert_allclose(volume.affine, ras["affine"], rtol=0, atol=1e-5)
    whole = ras["checksum_channel0"]
    check_array(volume.array[..., 0], whole, ras["samples_channel0"], 1e-6 * abs(whole["max"]))
    channels_first = np.moveaxis(volume.array, -1, 0)
    check_array(channels_first, ras["checksum_all"], [], 1e-6 * abs(ras["checksum_all"]["max"]))


@pytest.mark.parametrize("spacing", ["1.5,1.5,1.5", "2,2,2", "1.37,1.71,2.93"])
@pytest.mark.parametrize("name", IMAGES)
def test_resamples_linearly_as_monai_does(name, spacing, reference, expected):
    source = bob.read_volume(reference / "volumes" / name, channels=True).to_ras()
    want = expected[name]["resampled_linear"][spacing]
    if (
        name == OBLIQUE
    ):  # MONAI moves the first voxel of oblique volumes, we do not: compare on MONAI's own grid
        grid = np.zeros(want["shape_channel_first"][1:])
        volume = source.resample_like(bob.Volume(grid, want["affine"]), order=1)
    else:
        volume = source.resample([float(s) for s in spacing.split(",")], order=1)
        np.testing.assert_allclose(volume.affine, want["affine"], rtol=0, atol=1e-4)
    spread = float(source.array.max()) - float(source.array.min())
    tolerance = 2e-5 * spread  # the reference's own suggestion for float32
    check_array(volume.array[..., 0], want["checksum_channel0"], want["samples_channel0"], tolerance)


@pytest.mark.parametrize("spacing", ["1.5,1.5,1.5", "2,2,2", "1.37,1.71,2.93"])
@pytest.mark.parametrize("name", LABELS)
def test_resamples_labels_to_the_nearest(name, spacing, reference, expected):
    source = bob.read_volume(reference / "volumes" / name, kind="label").to_ras()
    assert counts(source.array) == {int(i): n for i, n in expected[name]["ras"]["label_counts"].items()}
    target = np.array([float(s) for s in spacing.split(",")])
    volume = source.resample(target, order=0)
    want = expected[name]["resampled_nearest"][spacing]
    assert list(volume.shape) == want["shape"]
    for index, value in want["samples_without_ties"]:
        assert volume.array[tuple(index)] == value, index
    clear = np.ones(volume.shape, bool)  # not half-way between two voxels on any axis, where tools differ
    for axis, (size, ratio) in enumerate(zip(volume.shape, target / np.array(source.spacing_mm))):
        tie = np.abs(np.arange(size) * ratio % 1 - 0.5) < 1e-6
        clear &= ~tie.reshape([-1 if a == axis else 1 for a in range(3)])
    without_ties = {int(i): n for i, n in want["label_counts_without_ties"].items()}
    assert counts(volume.array[clear]) == without_ties
    assert set(np.unique(volume.array)) <= set(np.unique(source.array))
