"""Training cases: image and label map on the grid of the plans."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

import ukbob_jax as bob
from tests.inference.nnunet import raw_folder
from ukbob_jax.errors import ConfigError, FileError, GeometryError, ValuesError
from ukbob_jax.inference.nnunet import training_case, write
from ukbob_jax.inference.nnunet.resample import TORCH
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume


def begun(tmp_path, **changes):
    """Raw folder, and the plans of a model begun for it."""
    raw, plans = raw_folder.write(tmp_path, **changes)
    return pathlib.Path(raw), write.begin(tmp_path / "nnunet", plans, raw, "3d_fullres", True)


def files(raw, name):
    return [raw / f"imagesTr/{name}_0000.nii.gz"], raw / f"labelsTr/{name}.nii.gz"


def test_the_label_map_follows_the_image_axis_by_axis(tmp_path):
    raw, plans = begun(tmp_path, number=1)
    image, label = raw_folder.case(0)
    array, found = training_case.prepare(plans, *files(raw, "case_0"))
    inside = (slice(1, None), slice(None), slice(2, None))  # x y z without the rim of zeros
    expected = label[inside].T.transpose(1, 0, 2)  # z y x, transposed as the plans say
    assert found.dtype == np.uint8 and array.shape == (1, *expected.shape)  # 2 mm: nothing is resampled
    np.testing.assert_array_equal(found, expected)
    values = image[inside].T.transpose(1, 0, 2).astype(np.float32)
    np.testing.assert_allclose(array[0], (values - values.mean()) / values.std(), atol=1e-5)


def test_a_label_map_that_is_not_the_images_is_refused(tmp_path):
    raw, plans = begun(tmp_path, number=1)
    images, label = files(raw, "case_0")
    ids = raw_folder.case(0)[1]
    write_volume(label, Volume(ids[1:], np.eye(4)))
    with pytest.raises(
        GeometryError, match=r"case_0\.nii\.gz: \(20, 18, 21\) voxels, its images \(20, 18, 22\)"
    ):
        training_case.prepare(plans, images, label)
    write_volume(label, Volume(ids + 2 * (ids == 2), np.eye(4)))
    with pytest.raises(
        ValuesError, match=r"case_0\.nii\.gz: ids \[4\] are not among the labels of dataset\.json"
    ):
        training_case.prepare(plans, images, label)


def test_the_ignored_label_is_not_learnt(tmp_path):
    raw, _ = begun(tmp_path / "a", number=1)
    (raw / "dataset.json").write_text(json.dumps(raw_folder.dataset(ignore=True)))
    plans = write.begin(tmp_path / "b", raw.parent / "plans.json", raw, "3d_fullres", True)
    images, label = files(raw, "case_0")
    ids = raw_folder.case(0)[1]
    ids[10:, 10:, 10:] = 3
    write_volume(label, Volume(ids, np.diag([-2.0, -2.0, 2.0, 1.0])))
    found = training_case.prepare(plans, images, label)[1]
    assert (found == 255).sum() == (ids == 3).sum() and set(np.unique(found)) <= {0, 1, 2, 255}


@pytest.mark.parametrize("torch", [False, True])
@pytest.mark.parametrize("spacing", [[2.0, 2.0, 2.0], [1.7, 2.6, 2.0], [9.0, 2.0, 2.5]])
def test_image_and_label_map_are_those_of_nnunet(tmp_path, spacing, torch):
    pytest.importorskip("nnunetv2")
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    changes = {"resampling_fn_seg": TORCH, "resampling_fn_seg_kwargs": {"is_seg": True}} if torch else {}
    raw, plans = begun(tmp_path, number=2, spacing=spacing, use_mask_for_norm=[True], **changes)
    for name in ("case_0", "case_1"):  # a corner of zeros, a part of which is labelled
        for path, value, corner in (
            (raw / f"imagesTr/{name}_0000.nii.gz", 0, np.s_[:7, :8, :9]),
            (raw / f"labelsTr/{name}.nii.gz", 2, np.s_[:4, :6, :5]),
        ):
            volume = bob.read_volume(path)
            array = np.array(volume.array)
            array[corner] = value
            write_volume(path, dataclasses.replace(volume, array=array))
    manager = PlansManager(dict(plans.plans))
    for name in ("case_0", "case_1"):
        images, label = files(raw, name)
        array, ids = training_case.prepare(plans, images, label)
        chosen = manager.get_configuration("3d_fullres")
        preprocessor = DefaultPreprocessor(verbose=False)
        theirs, seg, _ = preprocessor.run_case(
            list(map(str, images)), str(label), manager, chosen, plans.dataset
        )
        np.testing.assert_allclose(array, theirs, atol=1e-4)
        np.testing.assert_array_equal(ids, np.where(seg[0] < 0, 0, seg[0]))


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"patch_size": [16, 16], "spacing": [2.0, 2.0]}, "is of slices"),
        ({"previous_stage": "3d_lowres"}, "follows '3d_lowres'; cascades are not trained"),
    ],
)
def test_configurations_that_are_not_trained_are_refused_by_name(tmp_path, changes, named):
    if changes.get("patch_size"):
        network = raw_folder.plans()["configurations"]["3d_fullres"]["architecture"]
        kwargs = network["arch_kwargs"]
        kwargs |= {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]]}
        kwargs |= {
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        }
        changes = {**changes, "architecture": network}
    with pytest.raises(ConfigError, match=named):
        begun(tmp_path, number=1, **changes)


def test_a_model_of_other_plans_is_not_overwritten(tmp_path):
    raw, plans = begun(tmp_path, number=1)
    assert write.find(tmp_path / "nnunet", tmp_path / "plans.json", "3d_fullres", True) == plans
    (tmp_path / "plans.json").write_text(json.dumps(raw_folder.plans(batch_size=3)))
    with pytest.raises(FileError, match=r"plans\.json: differs from the one of this training"):
        write.begin(tmp_path / "nnunet", tmp_path / "plans.json", raw, "3d_fullres", True)
    with pytest.raises(
        FileError, match=r"nnUNetTrainerNoMirroring.*no such folder. Run the job preprocess first"
    ):
        write.find(tmp_path / "nnunet", tmp_path / "plans.json", "3d_fullres", False)
    with pytest.raises(ConfigError, match=r"config\.plans is empty"):
        write.begin(tmp_path / "nnunet", "", raw, "3d_fullres", True)
    with pytest.raises(ConfigError, match=r"config\.source\.paths\.root is empty"):
        write.begin(tmp_path / "nnunet", tmp_path / "plans.json", "", "3d_fullres", True)
