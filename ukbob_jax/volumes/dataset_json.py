"""The `dataset.json` of the Medical Segmentation Decathlon and of nnU-Net: what channels and labels are called."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ukbob_jax import files
from ukbob_jax.anatomy import NAMES
from ukbob_jax.errors import FileError
from ukbob_jax.regions import Regions
from ukbob_jax.volumes.case import LABEL_SET, MODALITIES, Description

NAME = "dataset.json"
IGNORE_NAME = "ignore"  # what nnU-Net calls the id of voxels nobody annotated
UNITS = {"CT": "HU", "MR": "arbitrary"}  # of a modality's voxels; those of PET differ


class Dataset(NamedTuple):
    """What a dataset.json says.

    Attributes:
        folder: where the paths in the file start.
        fields: the whole file.
        contrasts: channel names in channel order; empty where the file names none.
        labels: label id to name; empty where the file names none. An id that only regions name has the name of the
            smallest region it is in.
        ignored: ids that mean "not annotated here"; they are not among `labels`.
        regions: what nnU-Net learns instead of ids, where a label is a list of ids; None: ids.
    """

    folder: pathlib.Path
    fields: dict
    contrasts: tuple[str, ...]
    labels: dict[int, str]
    ignored: tuple[int, ...] = ()
    regions: Regions | None = None

    def description(self) -> Description:
        """Return what the file says of every subject's image and labels."""
        one = self.fields.get("modality")  # MONAI's lists hold one word for all channels
        said = {
            MODALITIES.get(name.lower(), "")
            for name in self.contrasts or ([one] if isinstance(one, str) else [])
        }
        modality = said.pop() if len(said) == 1 else ""
        return Description(
            modality=modality,
            units=UNITS.get(modality, ""),
            contrasts=tuple(map(_as_name, self.contrasts)),
            label_names={LABEL_SET: self.labels} if self.labels else {},
            ignored={LABEL_SET: self.ignored} if self.ignored else {},
            regions={LABEL_SET: self.regions} if self.regions else {},
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
    ids = _labels(path, fields)
    ignored = tuple(found[0] for name, found in ids.items() if name == IGNORE_NAME)
    learnt = {name: found for name, found in ids.items() if name != IGNORE_NAME}
    contrasts, labels = _contrasts(path, fields), _names(learnt)
    return Dataset(path.parent, fields, contrasts, labels, ignored, _regions(path, fields, learnt, labels))


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
    if isinstance(named, str):
        return ()
    try:
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except (TypeError, ValueError, KeyError) as error:
        raise FileError(f'{path}: channel names {named!r}; expected {{"0": "water", "1": "fat"}}.') from error


def _as_name(text: str) -> str:
    """A channel's name in the letters that names of a store have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.-") or "channel"


def _labels(path: pathlib.Path, fields: dict) -> dict[str, tuple[int, ...]]:
    """Name to ids, from {"1": "liver"} (decathlon) or {"liver": 1, "tumour": [1, 2]} (nnU-Net), in their order."""
    named = fields.get("labels", {})
    try:
        if all(isinstance(value, int | list) for value in named.values()):
            found = {str(k): tuple(map(int, v)) if isinstance(v, list) else (v,) for k, v in named.items()}
        else:
            found = {}
            for key, value in named.items():
                name = str(value)
                found[f"{name} {key}" if name in found else name] = (int(key),)
        if all(found.values()) and all(0 <= i <= 65535 for ids in found.values() for i in ids):
            return found
        raise ValueError("an id below 0, or no id")
    except (AttributeError, TypeError, ValueError) as error:
        raise FileError(
            f'{path}: labels {named!r}; expected {{"1": "liver"}} or {{"liver": 1}}, or a list of ids for a region.'
        ) from error


def _names(ids: Mapping[str, tuple[int, ...]]) -> dict[int, str]:
    """Id to name; one that only regions name has that of the smallest, with its number where they share it."""
    smallest = {}
    for name, values in sorted(ids.items(), key=lambda item: -len(item[1])):
        smallest.update(dict.fromkeys(values, name))
    counts = list(smallest.values())
    return {i: name if counts.count(name) == 1 else f"{name} {i}" for i, name in sorted(smallest.items())}


def _regions(
    path: pathlib.Path, fields: dict[str, Any], ids: Mapping[str, tuple[int, ...]], labels: Mapping[int, str]
) -> Regions | None:
    """nnU-Net's regions, where a label is a list of two ids or more; then every label but the background is one.

    Raises:
        FileError: `regions_class_order` does not say for each of them which id a prediction is written as.
    """
    if not any(len(values) > 1 for values in ids.values()):
        return None
    found = {name: values for name, values in ids.items() if values != (0,)}
    order = fields.get("regions_class_order")
    known = {value for values in found.values() for value in values}
    if not isinstance(order, list) or len(order) != len(found) or not all(value in known for value in order):
        raise FileError(
            f"{path}: labels {', '.join(found)} are regions, and regions_class_order is {order!r}; list one id for "
            "each, in their order."
        )
    written = {0: NAMES[0], **{value: labels[value] for value in order}}
    return Regions(tuple(found), tuple(found.values()), tuple(order), written)
