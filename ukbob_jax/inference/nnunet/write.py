"""A trained network as a model folder that nnU-Net predicts with (`nnUNetv2_predict`), and so do we.

The folder is begun before the training, with the plans that it follows, and gets its checkpoint afterwards.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.inference.nnunet import folders
from ukbob_jax.inference.nnunet import plans as model_plans
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.volumes import dataset_json
from ukbob_jax.weights import torch_files

CHECKPOINT = "checkpoint_final.pth"
MIRRORED, NOT_MIRRORED = (
    "nnUNetTrainer",
    "nnUNetTrainerNoMirroring",
)  # of nnU-Net 2.8.1; both build the plan's network


def begin(
    root: str | os.PathLike, plans_file: str | os.PathLike, data_set: str | os.PathLike, configuration: str,
    mirrored: bool,
) -> NnunetPlans:  # fmt: skip
    """Write plans.json and dataset.json of a model that is going to be trained, and read them.

    Args:
        root: in place of nnU-Net's folder `nnUNet_results`.
        plans_file: the plans.json of `nnUNetv2_plan_experiment`.
        data_set: the raw folder, with its dataset.json.
        configuration: one of the plans, such as "3d_fullres".
        mirrored: whether the training mirrors its crops along all axes; prediction then averages over mirror images.
    Raises:
        FileError: a file is missing or damaged, or `root` holds a model of other plans under this name.
        ConfigError: no plans are named, or the configuration cannot be trained here.
    """
    if not os.fspath(plans_file):
        raise ConfigError("config.plans is empty: name the plans.json of nnUNetv2_plan_experiment.")
    if not os.fspath(data_set):
        raise ConfigError("config.source.paths.root is empty: name nnU-Net's raw folder, DatasetNNN_NAME.")
    plans, dataset = files.read_json(plans_file), dataset_json.read(data_set).fields
    if not isinstance(plans, dict) or not {"dataset_name", "plans_name"} <= plans.keys():
        raise FileError(f"{plans_file}: no dataset_name and plans_name in it; give nnU-Net's plans.json.")
    folder = _model_folder(root, plans, configuration, mirrored)
    for name, value in ((folders.PLANS, plans), (dataset_json.NAME, dataset)):
        if (folder / name).is_file() and files.read_json(folder / name) != value:
            raise FileError(
                f"{folder / name}: differs from the one of this training. Take another workdir, or move it away."
            )
        files.write_json(folder / name, value)
    found = model_plans.read(folder)
    _check_trainable(found)
    return found


def find(
    root: str | os.PathLike, plans_file: str | os.PathLike, configuration: str, mirrored: bool
) -> NnunetPlans:
    """Read the plans of a model that `begin` wrote.

    Raises:
        FileError: it has not, or a file is damaged.
    """
    folder = _model_folder(root, files.read_json(plans_file), configuration, mirrored)
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder. Run the job preprocess first.")
    return model_plans.read(folder)


def checkpoint(
    plans: NnunetPlans, weights: Mapping[str, np.ndarray], fold: int, epochs: int = 0
) -> pathlib.Path:
    """Write `fold_K/checkpoint_final.pth` into the model's folder, as nnU-Net 2.8.1 lays it out.

    It holds what prediction and `-pretrained_weights` read, in plain containers, which `torch.load(weights_only=True)`
    reads; no state of an optimizer, so nnU-Net cannot go on with the training.

    Args:
        plans: of the model.
        weights: of the network, under all names that its PyTorch class gives them.
        fold: of the training.
        epochs: of the training.
    Returns:
        The file.
    Raises:
        FileError: it cannot be written.
    """
    path = plans.folder / f"fold_{fold}" / CHECKPOINT
    axes = tuple(range(len(plans.patch_size)))  # of the transposed array
    contents = {
        "network_weights": dict(weights),
        "optimizer_state": None,
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": None,
        "current_epoch": epochs,
        "init_args": {
            "plans": plans.plans,
            "configuration": plans.configuration,
            "fold": fold,
            "dataset_json": plans.dataset,
            "device": "cpu",
        },
        "trainer_name": plans.trainer,
        "inference_allowed_mirroring_axes": axes if plans.trainer == MIRRORED else None,
    }
    torch_files.save(path, contents)
    return path


def _model_folder(
    root: str | os.PathLike, plans: Mapping[str, Any], configuration: str, mirrored: bool
) -> pathlib.Path:
    """Where nnU-Net looks for a model."""
    trainer = MIRRORED if mirrored else NOT_MIRRORED
    name = "__".join((trainer, plans["plans_name"], configuration))
    return pathlib.Path(root) / plans["dataset_name"] / name


def _check_trainable(plans: NnunetPlans) -> None:
    """Refuse what prediction can do and training cannot."""
    said = f"config.configuration: {plans.configuration!r} of {plans.plans_name}"
    if len(plans.patch_size) != 3:
        raise ConfigError(f"{said} is of slices; only networks of three axes are trained here.")
    if plans.previous_stage:
        raise ConfigError(f"{said} follows {plans.previous_stage!r}; cascades are not trained here.")
    if max(plans.labels) > 254:
        raise ConfigError(f"{said} has labels up to {max(plans.labels)}; a store holds 0 to 254.")
