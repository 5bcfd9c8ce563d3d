"""The checkpoints of a model folder: `fold_K/checkpoint_final.pth`, read without PyTorch and without running code.

A checkpoint holds far more than weights. The optimiser's numbers, half of the file, are not read.
"""

import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

from ukbob_jax import weights
from ukbob_jax.errors import ConfigError, FileError, MismatchError, ValuesError
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.volumes import dataset_json
from ukbob_jax.weights import aliases, torch_files
from ukbob_jax.weights.tensors import expected, torch_names

FINAL, BEST = "checkpoint_final.pth", "checkpoint_best.pth"
ALL = "all"
_SHOWN = 6  # entries named in a message
_WHOLE = "fold_all"  # trained on all cases


class Checkpoint(NamedTuple):
    """What prediction needs of a checkpoint.

    Attributes:
        path: of the file.
        tensors: by the file's names; names of one tensor share one array.
        trainer: class that trained it.
        configuration: of the plans.
        mirror_axes: spatial axes of the network's input that may be flipped; empty: none.
        dataset: the dataset.json it was trained with; empty where it does not say.
    """

    path: pathlib.Path
    tensors: dict[str, np.ndarray]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    dataset: Mapping[str, Any]


def find(folder: pathlib.Path, folds: str | int | Sequence[int | str] = ALL) -> list[pathlib.Path]:
    """The checkpoints of some folds.

    Args:
        folder: the model folder.
        folds: "all": every fold that has a checkpoint, and of these `fold_all` only where it is alone; else their
            numbers, as a list or a text such as "0,1", or "fold_all".
    Raises:
        ConfigError: not numbers of folds.
        FileError: a fold has no checkpoint.
    """
    if folds == ALL:
        found = sorted(f for f in folder.glob("fold_*") if (f / FINAL).is_file() or (f / BEST).is_file())
        found = [f for f in found if f.name != _WHOLE] or found
        if not found:
            raise FileError(
                f"{folder}: no fold_*/{FINAL} in it. Download the model again, or train it to the end."
            )
    else:
        given = (
            folds.split(",") if isinstance(folds, str) else [folds] if isinstance(folds, int) else list(folds)
        )
        names = [str(fold).strip().removeprefix("fold_") for fold in given]
        if not names or not all(name.isdecimal() or name == ALL for name in names):
            raise ConfigError(f"folds: {folds!r} is neither {ALL!r} nor numbers such as 0,1.")
        found = [folder / f"fold_{name}" for name in dict.fromkeys(names)]
    return [_of_fold(folder, fold) for fold in found]


def _of_fold(folder: pathlib.Path, fold: pathlib.Path) -> pathlib.Path:
    if (fold / FINAL).is_file():
        return fold / FINAL
    if (fold / BEST).is_file():
        warnings.warn(f"{fold}: no {FINAL}, so {BEST} is used.", stacklevel=4)
        return fold / BEST
    there = ", ".join(sorted(f.name for f in folder.glob("fold_*"))) or "none"
    raise FileError(f"{fold}: no {FINAL} in it; folds that are there: {there}.")


def read(path: pathlib.Path) -> Checkpoint:
    """Read weights, trainer and mirroring axes.

    Raises:
        FileError: missing, damaged, or no checkpoint of nnU-Net v2.
    """
    file = torch_files.load(path)
    value = file.value if isinstance(file.value, dict) else {}
    weights_, trainer = value.get("network_weights"), value.get("trainer_name")
    arguments = value.get("init_args")
    if not (isinstance(weights_, dict) and isinstance(trainer, str) and isinstance(arguments, dict)):
        held = [str(key) for key in value] or [type(file.value).__name__]
        more = f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
        raise FileError(
            f"{path}: no checkpoint of nnU-Net v2, which has network_weights, trainer_name and init_args; it holds "
            f"{', '.join(held[:_SHOWN])}{more}."
        )
    tensors: dict[str, np.ndarray] = {}
    shared: dict[torch_files.TorchTensor, np.ndarray] = {}
    for name, tensor in weights_.items():
        if not isinstance(tensor, torch_files.TorchTensor):
            raise FileError(f"{path}: {name} in network_weights is no tensor. Fetch the file again.")
        if tensor not in shared:
            shared[tensor] = torch_files.numbers(file, tensor, f"{path}: {name}")
        tensors[name] = shared[tensor]
    axes = value.get("inference_allowed_mirroring_axes")
    if not (axes is None or (isinstance(axes, tuple | list) and all(isinstance(a, int) for a in axes))):
        raise FileError(f"{path}: inference_allowed_mirroring_axes is {axes!r}; expected numbers of axes.")
    dataset = arguments.get("dataset_json")
    return Checkpoint(
        path,
        tensors,
        trainer,
        str(arguments.get("configuration", "")),
        tuple(axes or ()),
        dataset if isinstance(dataset, dict) else {},
    )


def check(checkpoint: Checkpoint, plans: NnunetPlans) -> None:
    """Refuse a checkpoint that was not trained on what the folder's files describe.

    Raises:
        MismatchError: other labels, channels or axes.
    """
    where = plans.folder / dataset_json.NAME
    for key in ("labels", "regions_class_order", "channel_names", "modality"):
        trained, said = checkpoint.dataset.get(key), plans.dataset.get(key)
        same = _listed(trained) == _listed(said)
        if checkpoint.dataset and not same:
            raise MismatchError(
                f"{checkpoint.path}: was trained with {key} {trained!r}, and {where} has {said!r}. Put the files of one "
                "model together."
            )
    if any(not 0 <= axis < len(plans.patch_size) for axis in checkpoint.mirror_axes):
        raise MismatchError(
            f"{checkpoint.path}: mirrors axes {checkpoint.mirror_axes}, and the patch has {len(plans.patch_size)}."
        )


def variables(checkpoint: Checkpoint, model: nn.Module) -> dict[str, Any]:
    """All variables of `model`, float32: `params`, and the running statistics of batch norms.

    Raises:
        MismatchError: the weights are those of another network; names what differs.
        ValuesError: weights are NaN or infinite.
    """
    names = torch_names(model)
    own = {*expected(model), *names.copies(model)}
    found, _ = aliases.rename(checkpoint.tensors, names, str(checkpoint.path), None, own)
    if bad := [name for name, array in found.items() if not np.isfinite(array).all()]:
        raise ValuesError(f"{checkpoint.path}: {len(bad)} tensors hold NaN or infinity, such as {bad[0]}.")
    try:
        return {"params": weights.from_torch(found, model), **weights.state_from_torch(found, model)}
    except MismatchError as error:
        raise MismatchError(
            f"{checkpoint.path}: its weights (trainer {checkpoint.trainer}) are not those of the network in the plans: "
            f"{error}"
        ) from error


def _listed(value: Any) -> Any:
    """Tuples as lists, and mappings as lists of pairs, so that values from JSON and from pickles compare, with order."""
    if isinstance(value, Mapping):
        return [(str(key), _listed(item)) for key, item in value.items()]
    return [_listed(item) for item in value] if isinstance(value, tuple | list) else value
