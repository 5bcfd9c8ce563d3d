"""The Medical Segmentation Decathlon: a dataset.json that lists images (3-D, or 4-D with channels) and label maps."""

import os
import pathlib
from typing import Any

from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.volumes import dataset_json
from ukbob_jax.volumes.case import LABEL_SET, Case, check_present, listed, stem

SPLITS = {
    "training": "train",
    "validation": "val",
    "test": "test",
    "testing": "test",
}  # the last: MONAI's Auto3DSeg


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per entry of "training", "validation" and "test" (or "testing"); only the first must be there.

    Args:
        root: the dataset's folder, or its dataset.json.
    Raises:
        FileError: an unreadable dataset.json, entries without an image, missing files, or paths that lead out of the
            folder.
        EmptyError: no training list, or an empty one.
        MismatchError: the same subject twice.
    """
    dataset = dataset_json.read(root)
    where = dataset.folder / dataset_json.NAME
    if not dataset.fields.get("training"):
        raise EmptyError(
            f'{where}: the "training" list is missing or empty. List images and label maps there.'
        )
    cases = [
        _case(dataset, where, entry, split)
        for field, split in SPLITS.items()
        for entry in _entries(where, field, dataset.fields.get(field) or [])
    ]
    check_present([path for case in cases for path in (*case.images, *case.labels.values())], where)
    subjects = [case.subject for case in cases]
    if twice := sorted({name for name in subjects if subjects.count(name) > 1}):
        raise MismatchError(f"{where}: listed more than once: {listed(twice)}.")
    return cases


def _entries(where: pathlib.Path, field: str, entries: Any) -> list[dict]:
    """Each entry as a dict; the test list holds bare file names."""
    if not isinstance(entries, list):
        raise FileError(f'{where}: "{field}" is {type(entries).__name__}; expected a list.')
    entries = [{"image": entry} if isinstance(entry, str) else entry for entry in entries]
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or "image" not in entry:
            raise FileError(
                f'{where}: "{field}" entry {number} is {entry!r}; expected {{"image": ..., "label": ...}}.'
            )
    return entries


def _case(dataset: dataset_json.Dataset, where: pathlib.Path, entry: dict, split: str) -> Case:
    names = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    if not names:
        raise FileError(f"{where}: an entry has an empty image list: {entry!r}.")
    images = tuple(dataset_json.inside(dataset, name) for name in names)
    labels = {LABEL_SET: dataset_json.inside(dataset, entry["label"])} if "label" in entry else {}
    return Case(stem(images[0]), images, labels, split, description=dataset.description())
