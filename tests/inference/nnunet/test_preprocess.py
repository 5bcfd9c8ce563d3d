"""Preprocessing: of real runs to nnU-Net's own arrays, and rule by rule."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest

from tests.inference.nnunet import test_plans
from ukbob_jax.errors import MismatchError, ValuesError
from ukbob_jax.inference.nnunet import plans, preprocess
from ukbob_jax.volumes.volume import Volume

CASES = {  # run, case -> input
    ("mr_plain", "torso"): "nnunet_networks/runs/mr_plain/inputs/torso_0000.nii.gz",
    ("mr_plain", "spine"): "volumes/tpt_mr_spine.nii.gz",
    ("ct_resenc_regions", "torso"): "nnunet_networks/runs/ct_resenc_regions/inputs/torso_0000.nii.gz",
    ("ct_resenc_regions", "torso_pir"): "nnunet_networks/runs/ct_resenc_regions/inputs/torso_pir_0000.nii.gz",
}


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_real_runs_give_nnunets_arrays(reference, case):
    run = reference / "nnunet_networks/runs" / case[0]
    model = plans.read(next((run / "model").iterdir()))
    array, properties = preprocess.run(reference / CASES[case], model)
    expected = json.loads((run / "expected.json").read_text())["cases"][case[1]]
    assert properties["spacing"] == expected["spacing_zyx"]
    assert properties["bbox_used_for_cropping"] == expected["bbox_used_for_cropping"]
    assert list(array.shape) == expected["preprocessed"]["shape"]
    stages = run / "expected" / f"{case[1]}_stages.npz"
    if stages.exists():
        np.testing.assert_allclose(array, np.load(stages)["data"], atol=2e-4)
    else:
        assert np.abs(array).mean() == pytest.approx(expected["preprocessed"]["mean_abs"], rel=1e-6)


def model(tmp_path, **changes):
    """Plans with one spacing, no transposition, no cropping by mask."""
    found = plans.read(test_plans.write(tmp_path))
    rules = {"transpose_forward": (0, 1, 2), "transpose_backward": (0, 1, 2), "spacing": (1.0, 1.0, 1.0)}
    return dataclasses.replace(found, **{**rules, "normalization_schemes": ("NoNormalization",), **changes})


def scan():
    """x y z with a rim of zeros and a hole."""
    array = np.zeros((6, 7, 8), np.int16)
    array[1:5, 2:, 3:6] = np.random.default_rng(0).integers(1, 100, (4, 5, 3))
    array[2, 4, 4] = 0
    return array


def test_axes_are_those_of_the_file_reversed_and_transposed(tmp_path):
    rules = {"transpose_forward": (1, 0, 2), "transpose_backward": (1, 0, 2), "spacing": (2.0, 3.0, 1.0)}
    volume = Volume(scan(), np.diag([-1.0, 2.0, 3.0, 1.0]))
    array, properties = preprocess.run(volume, model(tmp_path, **rules))
    np.testing.assert_array_equal(array[0], scan()[1:5, 2:, 3:6].transpose(1, 2, 0))
    assert properties["spacing"] == [3.0, 2.0, 1.0]
    assert properties["bbox_used_for_cropping"] == [[2, 7], [3, 6], [1, 5]]
    assert properties["shape_before_cropping"] == (7, 8, 6)


@pytest.mark.parametrize("reader", ["SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_readers_with_reorientation_turn_to_ras(tmp_path, reader):
    affine = np.array([[0, 0, 2, 0], [-1, 0, 0, 9], [0, -3, 0, 8], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(scan(), affine), tmp_path / "scan.nii.gz")
    rules = {"reader": reader, "spacing": (3.0, 1.0, 2.0)}
    array, properties = preprocess.run(tmp_path / "scan.nii.gz", model(tmp_path, **rules))
    ras = nib.as_closest_canonical(nib.Nifti1Image(scan(), affine))
    box = tuple(slice(*pair) for pair in properties["bbox_used_for_cropping"])
    np.testing.assert_array_equal(array[0], np.asarray(ras.dataobj).T[box])
    assert properties["spacing"] == [3.0, 1.0, 2.0]


def test_nibabel_turns_a_scan_under_the_spacing_of_its_affine(tmp_path):
    """Where pixdim says another; a scan that is RAS already keeps pixdim."""
    for affine, expected in (
        (np.array([[0, 0, 2, 0], [-1, 0, 0, 9], [0, -3, 0, 8], [0, 0, 0, 1.0]]), [3.0, 1.0, 2.0]),
        (np.diag([1.0, 2.0, 3.0, 1.0]), [3.03, 2.02, 1.01]),
    ):
        image = nib.Nifti1Image(scan(), affine)
        image.set_sform(affine, 1)
        image.set_qform(None, 0)
        image.header["pixdim"][1:4] *= 1.01
        nib.save(image, tmp_path / "scan.nii.gz")
        said = model(tmp_path, reader="NibabelIOWithReorient")
        (tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres").rename(tmp_path / f"nnUNet{expected[0]}")
        _, properties = preprocess.run(tmp_path / "scan.nii.gz", said)
        assert properties["spacing"] == pytest.approx(expected, rel=1e-6)


def test_z_score_of_the_mask_leaves_the_rest_as_it_is(tmp_path):
    rules = {"normalization_schemes": ("ZScoreNormalization",), "use_mask_for_norm": (True,)}
    raw = scan()
    raw[1, 2, 3] = 0  # a corner of the box, outside the mask; the hole is inside
    array, _ = preprocess.run(Volume(raw, np.eye(4)), model(tmp_path, **rules))
    box = raw[1:5, 2:, 3:6].T.astype(np.float32)
    inside = np.ones(box.shape, bool)
    inside[0, 0, 0] = False
    assert array[0][0, 0, 0] == 0
    np.testing.assert_allclose(
        array[0][inside], (box[inside] - box[inside].mean()) / box[inside].std(), atol=1e-6
    )


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("CTNormalization", lambda x: (np.clip(x, -3, 4) - 1) / 2),
        ("NoNormalization", lambda x: x),
        ("RescaleTo01Normalization", lambda x: (x - x.min()) / (x.max() - x.min())),
        ("RGBTo01Normalization", lambda x: x / 255),
        ("ZScoreNormalization", lambda x: (x - x.mean()) / x.std()),
    ],
)
def test_schemes(tmp_path, scheme, expected):
    raw = np.random.default_rng(1).integers(1, 9, (4, 5, 6)).astype(np.float32)
    array, _ = preprocess.run(Volume(raw, np.eye(4)), model(tmp_path, normalization_schemes=(scheme,)))
    np.testing.assert_allclose(array[0], expected(raw.T), atol=1e-6)


def test_z_scores_mask_covers_what_is_labelled(tmp_path):
    """As nnU-Net's does for training cases and cascades: a labelled voxel counts although it is 0."""
    rules = {"normalization_schemes": ("ZScoreNormalization",), "use_mask_for_norm": (True,)}
    raw = scan()
    raw[1, 2, 3:5] = 0  # two voxels outside the mask, one of them labelled
    said = model(tmp_path, **rules, labels={0: "background", 1: "liver"})
    ids = np.zeros(raw.shape, np.uint8)
    ids[1, 2, 3] = 1
    array, properties = preprocess.crop(Volume(raw, np.eye(4)), said)
    found = preprocess.finish_cascade(array, properties, Volume(ids, np.eye(4)), said)
    box = raw[1:5, 2:, 3:6].T.astype(np.float32)
    inside = np.ones(box.shape, bool)
    inside[1, 0, 0] = False
    values = box[inside]
    expected = np.where(inside, (box - values.mean()) / values.std(), 0)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    np.testing.assert_array_equal(found[1], ids[1:5, 2:, 3:6].T)


def test_normalisation_comes_before_resampling(tmp_path):
    rules = {"normalization_schemes": ("ZScoreNormalization",), "spacing": (2.0, 2.0, 2.0)}
    raw = np.random.default_rng(2).normal(5, 2, (8, 8, 8)).astype(np.float32)
    array, _ = preprocess.run(Volume(raw, np.eye(4)), model(tmp_path, **rules))
    z = (raw - raw.mean()) / raw.std()
    assert array.shape == (1, 4, 4, 4)
    assert z.min() <= array.min() and array.max() <= z.max() and array.std() < 0.95


def test_a_network_of_slices_keeps_their_distance(tmp_path):
    rules = {"spacing": (2.0, 2.0), "patch_size": (4, 4)}
    raw = np.ones((8, 8, 5), np.float32)
    array, _ = preprocess.run(Volume(raw, np.diag([1.0, 1.0, 7.0, 1.0])), model(tmp_path, **rules))
    assert array.shape == (1, 5, 4, 4)


def test_an_empty_scan_is_not_cropped(tmp_path):
    rules = {"normalization_schemes": ("ZScoreNormalization",), "use_mask_for_norm": (True,)}
    array, _ = preprocess.run(Volume(np.zeros((3, 4, 5), np.int16), np.eye(4)), model(tmp_path, **rules))
    assert array.shape == (1, 5, 4, 3) and not array.any()


def test_wrong_channels_are_refused(tmp_path):
    volume = Volume(scan(), np.eye(4))
    with pytest.raises(MismatchError, match=r"2 channels, but this model takes 1 \(CT\)"):
        preprocess.run([volume, volume], model(tmp_path))
    two = {
        **{"channels": ("T1", "T2"), "normalization_schemes": ("NoNormalization",) * 2},
        **{"use_mask_for_norm": (False, False), "intensities": ({}, {})},
    }
    with pytest.raises(MismatchError, match="1 channels, but this model takes 2"):
        preprocess.run(volume, _changed(tmp_path, two))
    with pytest.raises(MismatchError, match="shape"):
        preprocess.run([volume, Volume(scan()[1:], np.eye(4))], _changed(tmp_path, two))
    with pytest.raises(ValuesError, match="colours"):
        rules = {"normalization_schemes": ("RGBTo01Normalization",)}
        preprocess.run(Volume(scan() * 9, np.eye(4)), dataclasses.replace(_changed(tmp_path, {}), **rules))


def _changed(tmp_path, changes):
    found = plans.read(next(tmp_path.glob("nnUNet*")))
    return dataclasses.replace(
        found, **{"transpose_forward": (0, 1, 2), "spacing": (1.0, 1.0, 1.0), **changes}
    )
