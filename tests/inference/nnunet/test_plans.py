"""Plans of real and of made-up model folders."""

import copy
import json

import pytest

from ukbob_jax.errors import FileError
from ukbob_jax.inference.nnunet import networks, plans
from ukbob_jax.networks import build

ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [8, 16],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2]],
        "n_conv_per_stage": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
RESAMPLE = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
PLANS = {
    "dataset_name": "Dataset001_Tiny",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [1, 0, 2],
    "transpose_backward": [1, 0, 2],
    "configurations": {
        "3d_fullres": {
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "batch_dice": False,
            "patch_size": [4, 16, 16],
            "spacing": [3.0, 1.0, 1.0],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": RESAMPLE,
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_seg_kwargs": {**RESAMPLE, "is_seg": True, "order": 1},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {**RESAMPLE, "order": 1},
            "architecture": ARCHITECTURE,
        },
        "3d_small": {"inherits_from": "3d_fullres", "batch_size": 4},
    },
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 1.0, "std": 2.0, "percentile_00_5": -3.0, "percentile_99_5": 4.0}
    },
}
DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}


def write(folder, change=None, dataset=None, name="nnUNetTrainer__nnUNetPlans__3d_fullres"):
    """A model folder without weights; `change` edits its plans."""
    found = copy.deepcopy(PLANS)
    if change:
        change(found)
    folder = folder / name
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(found))
    (folder / "dataset.json").write_text(json.dumps(dataset or DATASET))
    return folder


def test_the_configuration_is_that_of_the_folders_name(tmp_path):
    found = plans.read(write(tmp_path, name="nnUNetTrainer_5epochs__nnUNetPlans__3d_small"))
    assert (found.trainer, found.configuration, found.batch_size) == ("nnUNetTrainer_5epochs", "3d_small", 4)
    assert found.patch_size == (4, 16, 16) and found.spacing == (3.0, 1.0, 1.0)
    assert found.network.name == "plain_unet"
    assert found.network.fields["kernel_sizes"] == ((1, 3, 3), (3, 3, 3))
    assert (found.in_channels, found.out_channels) == (1, 2)


def test_old_plans_give_the_same_network(tmp_path):
    def old(found):
        chosen = found["configurations"]["3d_fullres"]
        del chosen["architecture"]
        chosen |= {
            **{"UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 8, "unet_max_num_features": 16},
            **{"n_conv_per_stage_encoder": [2, 2], "n_conv_per_stage_decoder": [2]},
            **{"num_pool_per_axis": [0, 1, 1], "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3]]},
            "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2]],
        }
        found["foreground_intensity_properties_by_modality"] = found.pop(
            "foreground_intensity_properties_per_channel"
        )

    found = plans.read(write(tmp_path, old))
    assert found.network == networks.of_architecture(ARCHITECTURE, "")
    assert found.intensities[0]["percentile_99_5"] == 4.0


def test_regions_and_ignored_labels_decide_the_heads(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    found = plans.read(write(tmp_path, dataset={**DATASET, "labels": labels, "regions_class_order": [1, 2]}))
    assert found.out_channels == 2 and found.region_labels == (1, 2)
    assert list(found.labels) == [0, 1, 2]


@pytest.mark.parametrize(
    ("trainer", "name", "field", "value"),
    [
        ("nnUNetTrainer_4000epochs_NoMirroring", "plain_unet", "n_stages", 2),
        ("nnUNetTrainer_DASegOrd0_NoMirroring", "plain_unet", "n_stages", 2),
        ("nnUNetTrainer_MOSAIC_1k_QuarterLR_NoMirroring", "plain_unet", "n_stages", 2),
        ("nnUNetTrainerBN", "plain_unet", "norm", "batch"),
        ("STUNetTrainer_large_ft", "stunet", "dims", (64, 128, 256, 512, 1024, 1024)),
        ("STUNetTrainer", "stunet", "pool_op_kernel_sizes", ((1, 2, 2), *((1, 1, 1),) * 4)),
        ("nnUNet_Primus_M_Trainer", "primus", "input_shape", (4, 16, 16)),
        ("nnUNet_PrimusV3S_Trainer", "primus", "version", 3),
        ("nnUNetTrainerV2_MedNeXt_L_kernel5", "mednext", "block_counts", (3, 4, 8, 8, 8, 8, 8, 4, 3)),
    ],
)
def test_trainers_build_their_networks(tmp_path, trainer, name, field, value):
    network = plans.read(write(tmp_path, name=f"{trainer}__nnUNetPlans__3d_fullres")).network
    assert network.name == name and network.fields[field] == value
    module = build(network.name, 1, 2, **network.fields)
    assert (module.in_channels, module.out_channels) == (1, 2)


def test_a_scalar_argument_counts_for_all_stages():
    arguments = {**ARCHITECTURE["arch_kwargs"], "kernel_sizes": 3, "strides": [1, 2], "n_conv_per_stage": 2}
    fields = networks.of_architecture({**ARCHITECTURE, "arch_kwargs": arguments}, "").fields
    assert fields["kernel_sizes"] == ((3, 3, 3),) * 2 and fields["strides"] == ((1, 1, 1), (2, 2, 2))
    assert fields["n_conv_per_stage"] == (2, 2)


def test_layers_of_the_plans_are_fields():
    layers = {
        "norm_op_kwargs": {"eps": 1e-3, "affine": True},
        "nonlin": "torch.nn.ReLU",
        "nonlin_first": True,
    }
    layers |= {"dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": {"p": 0.2}, "pool": None}
    arguments = {**ARCHITECTURE["arch_kwargs"], **layers}
    fields = networks.of_architecture({**ARCHITECTURE, "arch_kwargs": arguments}, "").fields
    assert (fields["norm_epsilon"], fields["slope"], fields["nonlin_first"]) == (1e-3, 0.0, True)
    assert (fields["dropout"], fields["dropout_rate"]) == ("channels", 0.2)
    bare = {key: value for key, value in arguments.items() if "norm" not in key and "nonlin" not in key}
    fields = networks.of_architecture({**ARCHITECTURE, "arch_kwargs": bare}, "").fields
    assert (fields["norm"], fields["slope"]) == ("none", 1.0)  # the class's defaults, not ours


def configuration(**values):
    return lambda found: found["configurations"]["3d_fullres"].update(values)


def architecture(**values):
    changed = {**ARCHITECTURE, "arch_kwargs": {**ARCHITECTURE["arch_kwargs"], **values}}
    return configuration(architecture=changed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.update(image_reader_writer="Tiff3DIO"), "image_reader_writer 'Tiff3DIO'"),
        (lambda found: found["configurations"].pop("3d_fullres"), "no configuration '3d_fullres'"),
        (configuration(inherits_from="3d_fullres"), "inherits from itself"),
        (configuration(normalization_schemes=["Mine"]), "normalization_schemes 'Mine'"),
        (configuration(normalization_schemes=["CTNormalization"] * 2), "2 entries"),
        (configuration(resampling_fn_data="mine"), "resampling_fn_data 'mine'"),
        (configuration(preprocessor_name="Mine"), "preprocessor_name 'Mine'"),
        (configuration(spacing=[1.0, 1.0]), "differ in length"),
        (architecture(norm_op="torch.nn.modules.normalization.GroupNorm"), "norm_op 'torch.nn.modules.norm"),
        (
            architecture(norm_op_kwargs={"track_running_stats": True}),
            "norm_op_kwargs.track_running_stats True",
        ),
        (architecture(norm_op="torch.nn.InstanceNorm2d"), "norm_op 'torch.nn.InstanceNorm2d' .*conv_op is"),
        (architecture(nonlin="torch.nn.PReLU"), "nonlin 'torch.nn.PReLU'"),
        (architecture(pool="max"), "unknown field 'pool'"),
        (architecture(strides=[[1, 1, 1]]), "strides has 1 entries, expected 2"),
        (lambda found: found.update(transpose_backward=[0, 1, 2]), "does not undo"),
        (lambda found: found.pop("transpose_forward"), "'transpose_forward' is missing"),
        (lambda found: found.pop("foreground_intensity_properties_per_channel"), "lack mean"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path, change, words):
    with pytest.raises(FileError, match=words) as caught:
        plans.read(write(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileError, match="TRAINER__PLANS__CONFIGURATION"):
        plans.read(write(tmp_path, name="model"))
    with pytest.raises(FileError, match="'MyTrainer' is not known"):
        plans.read(write(tmp_path, name="MyTrainer__nnUNetPlans__3d_fullres"))
    with pytest.raises(FileError, match="not 0, 1, 2"):
        dataset = {**DATASET, "labels": {"background": 0, "liver": 2}}
        plans.read(write(tmp_path, dataset=dataset))
