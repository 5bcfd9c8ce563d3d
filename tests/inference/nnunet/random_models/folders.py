"""The files of a random model folder: plans.json, dataset.json and checkpoints as nnU-Net 2.8.1 lays them out."""

import collections
import copy
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tests.inference.nnunet.random_models import scans
from tests.inference.nnunet.random_models.kinds import SPLINES, Spec, draw

NAME, PLANS = "Dataset321_Random", "nnUNetPlans"
_CHANNELS = {"CTNormalization": "CT", "ZScoreNormalization": "MR", "NoNormalization": "noNorm",
             "RescaleTo01Normalization": "rescale_to_0_1", "RGBTo01Normalization": "rgb_to_0_1"}  # fmt: skip


class Made(NamedTuple):
    """A folder and scans for it.

    Attributes:
        folder: TRAINER__PLANS__CONFIGURATION.
        theirs: what nnU-Net is given: the same, or, since it takes no prefixed names, one with plain names.
        first: the folder of a cascade's first stage.
        scans: files of each scan, one per channel.
        spec: what was drawn.
    """

    folder: pathlib.Path
    theirs: pathlib.Path
    first: pathlib.Path | None
    scans: tuple[tuple[str, ...], ...]
    spec: Spec


def make(root: pathlib.Path, kind: str, seed: int, count: int = 2) -> Made:
    """Write a folder of one kind and `count` scans below `root`."""
    import torch

    rng = np.random.default_rng([seed, *kind.encode()])
    torch.manual_seed(int(rng.integers(2**31)))
    spec = draw(kind, rng)
    plans, dataset = _plans(spec, rng), _dataset(spec)
    stages = (
        ["3d_lowres", "3d_cascade_fullres"] if spec.cascade else ["3d_fullres" if spec.rank == 3 else "2d"]
    )
    *first, folder = [_folder(root / NAME, stage, plans, dataset, spec) for stage in stages]
    theirs = folder
    if spec.prefix:
        theirs = _folder(root / "plain" / NAME, stages[-1], plans, dataset, spec)
        for file in folder.glob("fold_*/checkpoint_final.pth"):
            _rename(file, theirs / file.parent.name / file.name, spec.prefix)
    patch = next(c["patch_size"] for c in plans["configurations"].values() if "patch_size" in c)
    files = [scans.write(root / "scans", f"scan_{i}", spec, patch, rng) for i in range(count)]
    return Made(folder, theirs, first[0] if first else None, tuple(files), spec)


def _dataset(spec: Spec) -> dict[str, Any]:
    channels = {str(c): _CHANNELS[scheme] for c, scheme in enumerate(spec.schemes)}
    order = {"regions_class_order": spec.order} if spec.order else {}
    return {
        "channel_names": channels,
        "labels": spec.labels,
        "numTraining": 5,
        "file_ending": ".nii.gz",
        **order,
    }


def _plans(spec: Spec, rng: np.random.Generator) -> dict[str, Any]:
    full = _configuration(spec, rng, 1.0)
    configurations: dict[str, Any] = {"3d_fullres" if spec.rank == 3 else "2d": full}
    if spec.cascade:
        low = _configuration(spec, rng, 1.6)
        configurations |= {
            "3d_lowres": {**low, "next_stage": "3d_cascade_fullres"},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        }
    intensities = {
        str(c): {
            **{"max": 2000.0, "min": -1000.0, "median": 30.0, "mean": float(rng.normal(30, 5))},
            **{"std": float(rng.uniform(150, 250)), "percentile_00_5": -412.3, "percentile_99_5": 611.7},
        }
        for c in range(len(spec.schemes))
    }
    key = "foreground_intensity_properties_" + ("by_modality" if spec.before_2_4 else "per_channel")
    return {
        "dataset_name": NAME,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": spec.spacing,
        "original_median_shape_after_transp": [40, 40, 40],
        "image_reader_writer": spec.reader,
        "transpose_forward": spec.forward,
        "transpose_backward": np.argsort(spec.forward).tolist(),
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        key: intensities,
    }


def _configuration(spec: Spec, rng: np.random.Generator, coarser: float) -> dict[str, Any]:
    rank, stages = spec.rank, int(rng.integers(2, 4))
    kernels = [[int(k) for k in rng.choice([1, 3, 3], rank)] for _ in range(stages)]
    strides = [[1] * rank, *([int(s) for s in rng.choice([1, 2, 2], rank)] for _ in range(stages - 1))]
    whole = [math.prod(s[axis] for s in strides) for axis in range(rank)]
    patch = [int(w * round(rng.integers(10, 21) / w)) for w in whole]
    if "Primus" in spec.trainer:  # whose tokens are eight voxels wide
        patch = [8 * int(n) for n in rng.integers(1, 3, 3)]
    blocks = "n_conv_per_stage" if spec.network == "PlainConvUNet" else "n_blocks_per_stage"
    base = int(rng.integers(4, 9))
    resampling = {
        "data": (SPLINES, {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}),
        "seg": (SPLINES, {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}),
        "probabilities": (SPLINES, {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}),
        **spec.resampling,
    }
    functions = {f"resampling_fn_{what}": name for what, (name, _) in resampling.items()}
    arguments = {f"resampling_fn_{what}_kwargs": rules for what, (_, rules) in resampling.items()}
    architecture = {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{spec.network}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**i, 2 * base) for i in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{rank}d",
            "kernel_sizes": kernels,
            "strides": strides,
            blocks: [int(n) for n in rng.integers(1, 3, stages)],
            "n_conv_per_stage_decoder": [int(n) for n in rng.integers(1, 3, stages - 1)],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return {
        "data_identifier": f"{PLANS}_x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": [40.0] * rank,
        "spacing": [float(s) * coarser for s in spec.spacing[3 - rank :]],
        "normalization_schemes": spec.schemes,
        "use_mask_for_norm": spec.masked,
        **functions,
        **arguments,
        **(
            _old(architecture["arch_kwargs"], spec.network, base)
            if spec.before_2_4
            else {"architecture": architecture}
        ),
        "batch_dice": True,
    }


def _old(arguments: dict[str, Any], network: str, base: int) -> dict[str, Any]:
    """The architecture as plans before version 2.4 hold it."""
    blocks = "n_conv_per_stage" if network == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "UNet_class_name": network,
        "UNet_base_num_features": base,
        "unet_max_num_features": 2 * base,
        "n_conv_per_stage_encoder": arguments[blocks],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1] * len(arguments["strides"][0]),
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }


def _folder(home: pathlib.Path, stage: str, plans: dict, dataset: dict, spec: Spec) -> pathlib.Path:
    """One configuration's folder, with a checkpoint per fold."""
    folder = home / f"{spec.trainer}__{PLANS}__{stage}"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans, sort_keys=False))
    (folder / "dataset.json").write_text(json.dumps(dataset, sort_keys=False))
    if home.parent.name != "plain":
        for fold in spec.folds:
            (folder / f"fold_{fold}").mkdir()
            _checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth", stage, plans, dataset, spec, fold)
    return folder


def _checkpoint(path: pathlib.Path, stage: str, plans: dict, dataset: dict, spec: Spec, fold: int) -> None:
    import torch
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(copy.deepcopy(plans))
    configuration = manager.get_configuration(stage)
    inputs = determine_num_input_channels(manager, configuration, dataset)
    network = build(
        spec.trainer,
        manager,
        configuration,
        inputs,
        manager.get_label_manager(dataset).num_segmentation_heads,
    )
    state = network.state_dict()
    for name, tensor in state.items():
        if "seg_layers" in name and tensor.ndim > 1:
            tensor.sub_(tensor.mean(1, keepdim=True)).mul_(6)  # several labels, which differ clearly
        elif name.endswith("norm.weight"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("norm.bias", "running_mean")):
            tensor.normal_(0, 0.3)
        elif name.endswith("running_var"):
            tensor.uniform_(0.3, 2)
    torch.save(
        {
            "network_weights": state,
            "optimizer_state": {
                "state": {},
                "param_groups": [{"lr": 1e-5, "momentum": 0.99, "foreach": None}],
            },
            "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0},
            "logging": {"mean_fg_dice": [np.float32(0.5)], "lrs": [0.01]},
            "_best_ema": np.float32(0.5),
            "current_epoch": 1000,
            "init_args": {
                **{"plans": plans, "configuration": stage, "fold": fold, "dataset_json": dataset},
                "device": torch.device("cpu"),
            },
            "trainer_name": spec.trainer,
            "inference_allowed_mirroring_axes": spec.mirror,
        },
        path,
    )


def build(trainer: str, manager: Any, configuration: Any, inputs: int, heads: int) -> Any:
    """The network that a trainer's class builds, with heads of deep supervision."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    return recursive_find_trainer_class_by_name(trainer).build_network_architecture(
        manager, configuration, inputs, heads, enable_deep_supervision=True
    )


def _rename(file: pathlib.Path, plain: pathlib.Path, prefix: str) -> None:
    """Keep a checkpoint as `plain`, and put `prefix` before its names."""
    import torch

    content = torch.load(file, weights_only=False)
    plain.parent.mkdir(parents=True)
    torch.save(content, plain)
    content["network_weights"] = collections.OrderedDict(
        (prefix + name, tensor) for name, tensor in content["network_weights"].items()
    )
    torch.save(content, file)
