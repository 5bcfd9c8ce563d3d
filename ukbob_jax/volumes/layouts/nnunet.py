"""nnU-Net's raw datasets: imagesTr/CASE_0000.nii.gz, one file per channel, and labelsTr/CASE.nii.gz."""

import collections
import os
import pathlib
import re
import warnings
from typing import Any

from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.regions import Regions
from ukbob_jax.volumes import dataset_json
from ukbob_jax.volumes.case import (
    ENDINGS,
    LABEL_SET,
    Case,
    Description,
    check_files,
    grouped,
    listed,
    tell_unused,
)

FOLDERS = {"Tr": "train", "Ts": "test"}


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per subject of imagesTr, and of imagesTs where there is one.

    Where there is a dataset.json, it names channels and labels, and says which id means "not annotated here", which
    regions are learnt and, under "dataset", which files train in place of imagesTr.

    A subject without its label map, with fewer channels than others, or with an image that has no channel number, has a
    problem.

    Args:
        root: the folder `DatasetNNN_Name`.
    Raises:
        FileError: missing or empty folders, or a dataset.json that cannot be read or whose files cannot.
        MismatchError: a name in both sets, or no subject with all its channels and its label.
    """
    root = pathlib.Path(root)
    dataset = dataset_json.read(root) if (root / dataset_json.NAME).is_file() else None
    description, ending = dataset.description() if dataset else Description(), _file_ending(dataset)
    explicit = dataset.fields.get("dataset") if dataset else None
    cases = _explicit(root, explicit, description) if explicit else []
    for folder, split in FOLDERS.items():
        if (folder == "Tr" and not explicit) or (folder == "Ts" and _filled(root / "imagesTs")):
            cases += _cases(root, folder, split, description, ending)
    subjects = [case.subject for case in cases]
    if twice := sorted({name for name in subjects if subjects.count(name) > 1}):
        raise MismatchError(f"{root}: both in imagesTr and in imagesTs: {listed(twice)}.")
    cases = _of_most_channels(root, cases)
    if dataset and dataset.regions:
        _tell_of_regions(root, dataset.regions)
    return cases


def _of_most_channels(root: pathlib.Path, cases: list[Case]) -> list[Case]:
    """The cases; those with another number of channels than most have that as their problem."""
    counts = collections.Counter(len(case.images) for case in cases if not case.problem)
    most = max(counts, key=lambda number: (counts[number], number), default=0)
    problem = "{}: {} has {} channels, most subjects have {}. Complete it, or take it out."
    return [
        case
        if case.problem or len(case.images) == most
        else case._replace(problem=problem.format(root, case.subject, len(case.images), most))
        for case in cases
    ]


def _tell_of_regions(root: pathlib.Path, regions: Regions) -> None:
    shown = ", ".join(f"{name} {list(ids)}" for name, ids in zip(regions.names, regions.values))
    warnings.warn(
        f"{root / dataset_json.NAME}: the labels are regions: {shown}. Learn them with config.regions=dataset and "
        "config.loss.name=dice_bce; without it each id is a class.",
        stacklevel=4,
    )


def _file_ending(dataset: dataset_json.Dataset | None) -> str:
    """The ending of images and labels that dataset.json names; "": any.

    Raises:
        FileError: a format that is not read.
    """
    ending = dataset.fields.get("file_ending", "") if dataset else ""
    if ending and str(ending).lower() not in ENDINGS:
        raise FileError(
            f"{dataset.folder / dataset_json.NAME if dataset else ''}: file_ending {ending!r} is not read; expected "
            f"{', '.join(ENDINGS)}. Convert the files."
        )
    return str(ending).lower()


def _filled(folder: pathlib.Path) -> bool:
    """Whether the folder of a test set holds anything; many datasets leave an empty one."""
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def _explicit(root: pathlib.Path, entries: Any, description: Description) -> list[Case]:
    """Cases of {CASE: {"images": [one per channel], "label": file}}; paths are absolute or start in `root`."""
    where = root / dataset_json.NAME
    try:
        cases = [
            Case(
                name,
                tuple(root / path for path in entry["images"]),
                {LABEL_SET: root / entry["label"]},
                "train",
                description=description,
            )
            for name, entry in entries.items()
            if not isinstance(entry["images"], str)
        ]
        if len(cases) < len(entries):
            raise TypeError("images is a text, not a list")
    except (AttributeError, KeyError, TypeError) as error:
        raise FileError(
            f'{where}: "dataset" is not {{CASE: {{"images": [files], "label": file}}}} ({error}). Correct it.'
        ) from error
    return check_files(cases, where)


def _scans(folder: pathlib.Path, ending: str) -> dict[str, list[pathlib.Path]]:
    """The scans of a folder by stem, usually one each; with `ending`, those with that one."""
    found = grouped(folder)
    if ending:
        named = {
            stem: [path for path in paths if path.name.lower().endswith(ending)]
            for stem, paths in found.items()
        }
        found = {stem: paths for stem, paths in named.items() if paths}
    if not found:
        raise EmptyError(
            f"{folder}: no file ends in {ending}, which {dataset_json.NAME} has as file_ending. Correct it."
        )
    return found


def _channels(folder: pathlib.Path, ending: str) -> tuple[dict[str, list[pathlib.Path]], dict[str, str]]:
    """Subject -> its files in the order of their channels, and what is wrong with some subjects' files."""
    channels: dict[str, list[pathlib.Path]] = {}
    problems: dict[str, str] = {}
    for stem, paths in _scans(folder, ending).items():
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        name, number = (match[1], int(match[2])) if match else (stem, -1)
        found = channels.setdefault(name, [])
        if not match:
            told = (
                f"{paths[0]}: the name does not end in a channel number such as _0000. Rename or remove it."
            )
            problems.setdefault(name, told)
        elif len(paths) > 1:
            told = f"{folder}: two files for {stem}: {', '.join(path.name for path in paths)}; keep one."
            problems.setdefault(name, told)
        elif number != len(found):
            told = f"{paths[0]}: channel {match[2]} of {name}, but {len(found):04d} is missing."
            problems.setdefault(name, told)
        found.append(paths[0])
    return channels, problems


def _cases(root: pathlib.Path, folder: str, split: str, description: Description, ending: str) -> list[Case]:
    channels, problems = _channels(root / f"images{folder}", ending)
    where = root / f"labels{folder}"
    labelled = split == "train" or _filled(where)
    labels = _scans(where, ending) if labelled else {}
    if labelled and not labels.keys() & channels.keys():
        differ = sorted(labels.keys() ^ channels.keys())
        raise MismatchError(f"{where}: images and labels do not match for {listed(differ)}.")
    tell_unused([path for name, paths in labels.items() if name not in channels for path in paths], where)
    for name in channels if labelled else ():
        of_name = [path.name for path in labels.get(name, ())]
        if not of_name:
            problems.setdefault(name, f"{where}: no label map for {name}. Add it, or remove the images.")
        elif len(of_name) > 1:
            problems.setdefault(name, f"{where}: two files for {name}: {', '.join(of_name)}; keep one.")
    return [
        Case(
            name,
            tuple(paths),
            {LABEL_SET: labels[name][0]} if name in labels else {},
            split,
            description=description,
            problem=problems.get(name, ""),
        )
        for name, paths in channels.items()
    ]
