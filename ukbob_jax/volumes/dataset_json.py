"""The `dataset.json` of the Medical Segmentation Decathlon and of nnU-Net: what channels and labels are called."""

import os
import pathlib
from typing import NamedTuple

from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.volumes.case import LABEL_SET, Description

NAME = "dataset.json"
IGNORE_NAME = "ignore"  # what nnU-Net calls the id of voxels nobody annotated
MODALITIES = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT", "pt": "PT"}  # small letters -> DICOM's name
UNITS = {"CT": "HU", "MR": "arbitrary"}  # of a modality's voxels; those of PET differ


class Dataset(NamedTuple):
    """What a dataset.json says.

    Attributes:
        folder: where the paths in the file start.
        fields: the whole file.
        contrasts: channel names in channel order; empty where the file names none.
        labels: label id to name; empty where the file names none.
        ignored: ids that mean "not annotated here"; they are not among `labels`.
    """

    folder: pathlib.Path
    fields: dict
    contrasts: tuple[str, ...]
    labels: dict[int, str]
    ignored: tuple[int, ...] = ()

    def description(self) -> Description:
        """Return what the file says of every subject's image and labels."""
        said = {MODALITIES.get(name.lower(), "") for name in self.contrasts}
        modality = said.pop() if len(said) == 1 else ""
        return Description(
            modality=modality,
            units=UNITS.get(modality, ""),
            contrasts=self.contrasts,
            label_names={LABEL_SET: self.labels} if self.labels else {},
            ignored={LABEL_SET: self.ignored} if self.ignored else {},
        )


def read(root: str | os.PathLike) -> Dataset:
    """The description of a dataset.

    Args:
        root: the dataset's folder, or its dataset.json.
    Raises:
        FileError: missing, not JSON, or fields of another shape.
    """
    path = pathlib.Path(root)
    path = path / NAME if path.is_dir() else path
    fields = files.read_json(path)
    if not isinstance(fields, dict):
        raise FileError(
            f"{path}: expected a JSON object with a training list, found {type(fields).__name__}."
        )
    labels = _labels(path, fields)
    ignored = tuple(i for i, name in labels.items() if name == IGNORE_NAME)
    named = {i: name for i, name in labels.items() if i not in ignored}
    return Dataset(path.parent, fields, _contrasts(path, fields), named, ignored)


def inside(dataset: Dataset, name: str) -> pathlib.Path:
    """The file called `name` in the dataset.

    Raises:
        FileError: not a name, or one that leads out of the dataset's folder.
    """
    where = dataset.folder / NAME
    if not isinstance(name, str) or not name:
        raise FileError(f"{where}: expected a file name, found {name!r}.")
    path = os.path.normpath(dataset.folder / name)
    folder = os.path.abspath(dataset.folder)
    if os.path.commonpath([os.path.abspath(path), folder]) != folder:
        raise FileError(f"{where}: {name!r} leads out of the dataset's folder; use paths below it.")
    return pathlib.Path(path)


def _contrasts(path: pathlib.Path, fields: dict) -> tuple[str, ...]:
    """From {"0": "water", "1": "fat"}, under nnU-Net's key or the decathlon's."""
    named = fields.get("channel_names", fields.get("modality", {}))
    try:
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except (TypeError, ValueError, KeyError) as error:
        raise FileError(f'{path}: channel names {named!r}; expected {{"0": "water", "1": "fat"}}.') from error


def _labels(path: pathlib.Path, fields: dict) -> dict[int, str]:
    """From {"1": "liver"} (decathlon) or {"liver": 1} (nnU-Net)."""
    named = fields.get("labels", {})
    try:
        if all(isinstance(value, int) for value in named.values()):
            return {value: str(key) for key, value in named.items()}
        return {int(key): str(value) for key, value in named.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise FileError(
            f'{path}: labels {named!r}; expected {{"1": "liver"}} or {{"liver": 1}}. Lists of ids (regions) '
            "are not supported: name each id by itself."
        ) from error
