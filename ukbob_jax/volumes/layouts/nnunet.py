"""nnU-Net's raw datasets: imagesTr/CASE_0000.nii.gz, one file per channel, and labelsTr/CASE.nii.gz."""

import os
import pathlib
import re

from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.volumes import dataset_json
from ukbob_jax.volumes.case import LABEL_SET, Case, Description, listed, scans, stem

FOLDERS = {"Tr": "train", "Ts": "test"}


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per subject of imagesTr, and of imagesTs where there is one.

    Where there is a dataset.json, it names channels and labels, and says which id means "not annotated here".

    Args:
        root: the folder `DatasetNNN_Name`.
    Raises:
        FileError: missing or empty folders, or a dataset.json that cannot be read or lists its images elsewhere.
        MismatchError: names without a channel number, missing channels, images without label or the reverse,
            a name in both sets.
    """
    root = pathlib.Path(root)
    description = _description(root)
    cases = [
        case
        for ending, split in FOLDERS.items()
        if ending == "Tr" or _filled(root / "imagesTs")
        for case in _cases(root, ending, split, description)
    ]
    subjects = [case.subject for case in cases]
    if twice := sorted({name for name in subjects if subjects.count(name) > 1}):
        raise MismatchError(f"{root}: both in imagesTr and in imagesTs: {listed(twice)}.")
    numbers = {len(case.images) for case in cases}
    if len(numbers) > 1:
        odd = [case.subject for case in cases if len(case.images) < max(numbers)]
        raise MismatchError(f"{root}: fewer than {max(numbers)} channels for {listed(odd)}.")
    return cases


def _description(root: pathlib.Path) -> Description:
    """What dataset.json says; nothing without one."""
    path = root / dataset_json.NAME
    if not path.is_file():
        return Description()
    dataset = dataset_json.read(root)
    if dataset.fields.get("dataset"):
        raise FileError(
            f'{path}: "dataset" lists the images in place of imagesTr, which is not supported. '
            "Put the files into imagesTr and labelsTr, and take the key out."
        )
    return dataset.description()


def _filled(folder: pathlib.Path) -> bool:
    """Whether the folder of a test set holds anything; many datasets leave an empty one."""
    return folder.is_dir() and any(folder.iterdir())


def _cases(root: pathlib.Path, ending: str, split: str, description: Description) -> list[Case]:
    channels: dict[str, list[pathlib.Path]] = {}
    for path in scans(root / f"images{ending}").values():
        match = re.fullmatch(r"(.+)_(\d{4})", stem(path))
        if not match:
            raise FileError(f"{path}: the name does not end in a channel number such as _0000.")
        found = channels.setdefault(match[1], [])
        if int(match[2]) != len(found):
            raise MismatchError(f"{path}: channel {match[2]} of {match[1]}, but {len(found):04d} is missing.")
        found.append(path)
    folder = root / f"labels{ending}"
    labelled = split == "train" or _filled(folder)
    labels = scans(folder) if labelled else {}
    if labelled and labels.keys() != channels.keys():
        differ = sorted(labels.keys() ^ channels.keys())
        raise MismatchError(f"{folder}: images and labels do not match for {listed(differ)}.")
    return [
        Case(
            name,
            tuple(paths),
            {LABEL_SET: labels[name]} if labelled else {},
            split,
            description=description,
        )
        for name, paths in channels.items()
    ]
