"""A tiny data set in nnU-Net's raw format with plans for it: bright balls and dark boxes in noise."""

import json
import pathlib
from typing import Any

import nibabel
import numpy as np

NAME = "Dataset907_Balls"
SHAPE = (22, 20, 18)  # x y z of the files
PATCH = [16, 16, 16]


def plans(**changes: Any) -> dict[str, Any]:
    """A plans.json as nnU-Net 2.8.1 writes it, for z-scored scans of 2 mm; `changes` are of the configuration."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    name = "resample_data_or_seg_to_shape"
    network = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2]],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": PATCH,
        "median_image_size_in_voxels": [20.0, 20.0, 20.0],
        "spacing": [2.0, 2.0, 2.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **{f"resampling_fn_{what}": name for what in ("data", "seg", "probabilities")},
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
        **changes,
    }
    keys = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 2.0, 2.0],
        "original_median_shape_after_transp": [20, 20, 20],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": dict.fromkeys(keys, 1.0)},
    }


def dataset(regions: bool = False, ignore: bool = False) -> dict[str, Any]:
    """The dataset.json of balls (1) and boxes (2), or of regions: anything, boxes."""
    labels: dict[str, Any] = {"background": 0, "ball": 1, "box": 2}
    if regions:
        labels = {"background": 0, "anything": [1, 2], "box": 2}
    if ignore:
        labels["ignore"] = 3
    order = {"regions_class_order": [1, 2]} if regions else {}
    about = {"numTraining": 6, "file_ending": ".nii.gz", "name": NAME}
    return {"channel_names": {"0": "MR"}, "labels": labels, **about, **order}


def case(seed: int, shape=SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Image int16 and label map uint8, x y z; a rim of zeros is cropped away."""
    rng = np.random.default_rng(seed)
    ball, box = (np.array([rng.integers(6, n - 6) for n in shape]) for _ in range(2))
    x = np.indices(shape)
    label = (sum((a - c) ** 2 for a, c in zip(x, ball)) < 20).astype(np.uint8)
    label[tuple(slice(c - 3, c + 3) for c in box)] = 2
    image = rng.normal(100, 10, shape) + 80 * (label == 1) - 60 * (label == 2)
    image[:, :, :2] = image[:1] = label[:, :, :2] = label[:1] = 0
    return image.astype(np.int16), label


def write(
    root: pathlib.Path, number: int = 6, regions: bool = False, ignore: bool = False, **changes: Any
) -> tuple[str, str]:
    """Write the raw folder and its plans below `root`; returns both paths. `ignore`: a corner is not annotated."""
    raw = root / NAME
    for seed in range(number):
        image, label = case(seed)
        if ignore:
            label[-6:, -6:, -6:] = 3
        affine = np.diag([-2.0, -2.0, 2.0 + 0.2 * (seed % 2), 1.0])  # LPS, as nnU-Net's readers see it
        for folder, array, name in (
            ("imagesTr", image, f"case_{seed}_0000"),
            ("labelsTr", label, f"case_{seed}"),
        ):
            (raw / folder).mkdir(parents=True, exist_ok=True)
            volume = nibabel.Nifti1Image(array, affine)
            volume.set_qform(affine, 1)
            volume.set_sform(affine, 1)
            nibabel.save(volume, raw / folder / f"{name}.nii.gz")
    (raw / "dataset.json").write_text(json.dumps(dataset(regions, ignore)))
    (root / "plans.json").write_text(json.dumps(plans(**changes)))
    return str(raw), str(root / "plans.json")
