"""The Medical Segmentation Decathlon: a dataset.json that lists images (3-D, or 4-D with channels) and label maps."""

import collections
import dataclasses
import os
import pathlib
import re
import warnings
from typing import Any

from ukbob_jax.errors import EmptyError, FileError
from ukbob_jax.volumes import dataset_json
from ukbob_jax.volumes.case import LABEL_SET, Case, Description, check_files, selector, stem

SPLITS = {
    "training": "train",
    "validation": "val",
    "test": "test",
    "testing": "test",
}  # the last: MONAI's Auto3DSeg


AMOS = re.compile(r"amos_(\d{4})")  # AMOS22 lists CT and MR together; its numbers up to 500 are CT
AMOS_LAST_CT = 500
_IMAGES = re.compile(r"images(Tr|Va|Ts)?$")  # folders of a data set, not of a subject


def list_cases(root: str | os.PathLike, *, modality: str = "", fold: str = "") -> list[Case]:
    """One case per entry of "training", "validation" and "test" (or "testing"); only the first must be there.

    In MONAI's datalists (Auto3DSeg) an entry of "training" may say its "fold"; one of them can validate.

    A subject that is listed twice, or of which a file is missing, has a problem.

    Args:
        root: the dataset's folder, or its dataset.json.
        modality: "CT" or "MR": leave the subjects out that are known to be of another; a warning says how many.
            "": take all.
        fold: number of the fold that validates; "": all of "training" trains, and a warning names the folds.
    Raises:
        FileError: an unreadable dataset.json, entries without an image, paths that lead out of the folder, or nobody
            whose files are there.
        EmptyError: no training list, an empty one, nobody of this modality, or none outside or inside the fold.
    """
    dataset = dataset_json.read(root)
    where = dataset.folder / dataset_json.NAME
    if not dataset.fields.get("training"):
        raise EmptyError(
            f'{where}: the "training" list is missing or empty. List images and label maps there.'
        )
    listings = {field: _entries(where, field, dataset.fields.get(field) or []) for field in SPLITS}
    folds = _folds(where, listings["training"], fold)
    cases = _with_folders(
        [
            _case(dataset, where, entry, "val" if field == "training" and folds[n] == fold != "" else split)
            for field, split in SPLITS.items()
            for n, entry in enumerate(listings[field])
        ]
    )
    counts = collections.Counter(case.subject for case in cases)
    twice = "{}: {} is listed more than once. Keep one entry."
    cases = [
        case._replace(problem=twice.format(where, case.subject)) if counts[case.subject] > 1 else case
        for case in {case.subject: case for case in check_files(cases, where)}.values()
    ]
    return _of_modality(cases, modality, where) if modality else cases


def _folds(where: pathlib.Path, entries: list[dict], fold: str) -> list[str]:
    """The fold of each entry as text, "" where it says none.

    Raises:
        EmptyError: no entry is of the fold asked for, or all are.
    """
    folds = [str(entry.get("fold", "")) for entry in entries]
    numbers = sorted({number for number in folds if number}, key=lambda text: (len(text), text))
    if fold and (fold not in numbers or {*folds} == {fold}):
        raise EmptyError(
            f'{where}: {selector("fold")}={fold}, but "training" has the folds {", ".join(numbers) or "of none"}; '
            "one must validate and others train."
        )
    if len(numbers) > 1 and not fold:
        warnings.warn(
            f"{where}: the training entries have folds ({', '.join(numbers)}), and all of them train. Let one validate "
            f"with {selector('fold')}={numbers[0]}.",
            stacklevel=4,
        )
    return folds


def _with_folders(cases: list[Case]) -> list[Case]:
    """The cases, called FOLDER_NAME where several images of other folders have one name, as p1/ct.nii and p2/ct.nii.

    One name in imagesTr and imagesTs stays one subject that is listed twice.
    """
    folders: dict[str, set[str]] = {}
    for case in cases:
        folders.setdefault(case.subject, set()).add(case.images[0].parent.name)
    several = {name for name, of in folders.items() if len(of) > 1 and not any(map(_IMAGES.match, of))}
    return [
        case._replace(subject=f"{case.images[0].parent.name}_{case.subject}")
        if case.subject in several
        else case
        for case in cases
    ]


def _of_modality(cases: list[Case], modality: str, where: pathlib.Path) -> list[Case]:
    kept = [case for case in cases if case.description.modality in ("", modality)]
    if not kept:
        raise EmptyError(
            f"{where}: none of the {len(cases)} subjects is {modality}. Choose another modality."
        )
    if len(kept) < len(cases):
        aside = len(cases) - len(kept)
        warnings.warn(
            f"{where}: {aside} of {len(cases)} subjects are not {modality} and are left aside.", stacklevel=3
        )
    return kept


def _description(dataset: dataset_json.Dataset, subject: str) -> Description:
    """What the file says; of AMOS22, which says CT of all, the modality by the subject's number."""
    said = dataset.description()
    number = AMOS.fullmatch(subject)
    if not number:
        return said
    modality = "CT" if int(number[1]) <= AMOS_LAST_CT else "MR"
    return dataclasses.replace(said, modality=modality, units=dataset_json.UNITS[modality], contrasts=())


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
    label = entry.get("label")  # null where an image has none
    labels = {} if label is None else {LABEL_SET: dataset_json.inside(dataset, label)}
    return Case(stem(images[0]), images, labels, split, description=_description(dataset, stem(images[0])))
