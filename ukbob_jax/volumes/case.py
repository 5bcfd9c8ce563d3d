"""One subject as it lies in somebody's folders, before any voxel is read."""

import dataclasses
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ukbob_jax import advice
from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.regions import Regions
from ukbob_jax.volumes import formats

ENDINGS = (".nii.gz", ".nii", *formats.ENDINGS)
LABEL_SET = "manual"  # name of the label set where a layout has only one
ANATOMY = "mask/anatomy"  # label set: 1 where tissue is
ANONYMISATION = "mask/anonymisation"  # label set: 1 where voxels were blurred, removed or replaced
SHOWN = 3  # names listed in a message

MODALITIES = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT", "pt": "PT"}  # small letters -> DICOM's name


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """What the data set itself says about a subject's arrays; nothing in it is guessed from voxel values.

    Attributes:
        modality: as DICOM spells it, such as "CT", "MR", "PT"; "": not said.
        units: of the voxels, "HU", "SUV" or "arbitrary"; "": not said.
        contrasts: channel names in channel order; empty: not said.
        label_names: per label set, id to name.
        ignored: per label set, ids that mean "not annotated here"; they are stored as 255.
        regions: per label set, overlapping regions of ids that are to be learnt instead of ids.
        attributes: facts about the scan or its person, by the names that a store takes.
    """

    modality: str = ""
    units: str = ""
    contrasts: tuple[str, ...] = ()
    label_names: Mapping[str, Mapping[int, str]] = dataclasses.field(default_factory=dict)
    ignored: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    regions: Mapping[str, Regions] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Case(NamedTuple):
    """Where one subject's files are.

    Attributes:
        subject: unique within the dataset; the name under which it is stored.
        images: one file per channel, or one file that holds all channels.
        labels: label-set name to a label map, or to a folder of one mask per organ.
        split: "train", "val", "test", or "" where the layout does not say.
        person: whose scan it is, where one person has several subjects; "": the subject is the person.
        description: what the data set says about images and labels.
        problem: why this subject cannot be used, as far as names tell, such as a label map that is missing; "": it can.
        gradients: the .bval and the .bvec of an image that is a diffusion series; empty: it is none, or they are not there.
    """

    subject: str
    images: tuple[pathlib.Path, ...]
    labels: dict[str, pathlib.Path]
    split: str = ""
    person: str = ""
    description: Description = Description()
    problem: str = ""
    gradients: tuple[pathlib.Path, ...] = ()


def stem(path: pathlib.Path) -> str:
    """The file name without .nii.gz or another ending of a scan."""
    return path.name[: -len(ending)] if (ending := _ending(path)) else path.name


def is_scan(path: pathlib.Path | str) -> bool:
    """Whether the name is that of a scan, NIfTI or one of `formats`; hidden files, such as a Mac's `._NAME`, are none."""
    path = pathlib.Path(path)
    return bool(_ending(path)) and not path.name.startswith(".")


def scans(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The scans directly in `folder` by stem, sorted; files hidden by a leading dot are left out.

    Raises:
        FileError: no such folder.
        EmptyError: no scan in it.
        MismatchError: the same stem with two endings.
    """
    return unique(((name, path) for name, paths in grouped(folder).items() for path in paths), folder)


def grouped(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """As `scans`, with all files of a stem: usually one.

    Raises:
        FileError: no such folder.
        EmptyError: no scan in it.
    """
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder.")
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(folder.iterdir()):
        if is_scan(path):
            found.setdefault(stem(path), []).append(path)
    if not found:
        raise EmptyError(
            f"{folder}: no .nii or .nii.gz file in this folder, nor .nrrd, .mha or .mgz. Name the folder that holds them."
        )
    return found


def unique(named: Iterable[tuple[str, pathlib.Path]], where: pathlib.Path) -> dict[str, pathlib.Path]:
    """A dict of the pairs.

    Raises:
        MismatchError: two files under one name.
    """
    found: dict[str, pathlib.Path] = {}
    for name, path in named:
        if name in found:
            raise MismatchError(
                f"{where}: two files for {name}: {found[name].name} and {path.name}; keep one."
            )
        found[name] = path
    return found


def check_present(paths: Sequence[pathlib.Path], where: pathlib.Path) -> None:
    """Refuse a list that names files which are not there.

    Raises:
        FileError: with how many are missing, and the first few.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileError(f"{where}: {len(missing)} of {len(paths)} files are missing: {listed(missing)}.")


def one_case(
    name: str, images: Sequence[pathlib.Path], labels: Sequence[pathlib.Path] | None, problem: str = ""
) -> Case:
    """A subject that should have one image and one label map, and otherwise has a problem; labels None: no labels."""
    if problem:
        pass
    elif len(images) > 1:
        problem = f"{images[0].parent}: two files for {name}: {', '.join(p.name for p in images)}; keep one."
    elif labels is not None and len(labels) > 1:
        problem = f"{images[0]}: several label maps: {', '.join(p.name for p in labels)}; keep one."
    elif labels is not None and not labels:
        problem = f"{images[0]}: it has no label map. Add it, or remove the image."
    return Case(name, (images[0],), {LABEL_SET: labels[0]} if labels else {}, problem=problem)


def check_files(cases: Sequence[Case], where: pathlib.Path) -> list[Case]:
    """Return the cases of a list; those whose files are not all there with that as their problem.

    Raises:
        FileError: of no case are all files there; with how many are missing, and the first few.
    """
    checked = []
    for case in cases:
        missing = [path for path in (*case.images, *case.labels.values()) if not path.exists()]
        problem = (
            f"{where}: {case.subject}: missing: {listed(missing)}. Fetch it, or take it out of the list."
        )
        checked.append(case._replace(problem=problem) if missing else case)
    if all(case.problem for case in checked):
        check_present([path for case in cases for path in (*case.images, *case.labels.values())], where)
    return checked


def tell_unused(labels: Sequence[pathlib.Path], where: pathlib.Path | str) -> None:
    """Warn of label maps that are of no image."""
    if labels:
        named = listed([path.name for path in labels])
        warnings.warn(
            f"{where}: {len(labels)} label maps have no image and are left aside: {named}.", stacklevel=4
        )


def selector(name: str) -> str:
    """What chooses among a layout's files, as the user of this program writes it: `config.source.paths.desc`."""
    field, option = advice.setting("paths"), advice.setting("path")
    if field.startswith("config."):
        return f"{field}.{name}"
    return f"{option} {name}" if option.startswith("--") else name


def listed(names: Iterable) -> str:
    """The first few names, and how many more there are."""
    names = [str(name) for name in names]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _ending(path: pathlib.Path) -> str:
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")
