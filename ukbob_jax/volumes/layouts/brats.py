"""BraTS: a folder per subject with one file per contrast and the tumour's label map, in any of its spellings.

Until 2021 SUBJECT/SUBJECT_t1.nii.gz, _t1ce, _t2, _flair, _seg; since 2023 SUBJECT-t1n, -t1c, -t2w, -t2f, -seg. Meningioma
before radiotherapy (2024) has one contrast and a gross tumour volume: SUBJECT_t1c.nii.gz, SUBJECT_gtv.nii.gz.
"""

import os
import pathlib
import re
import warnings
from collections.abc import Iterable, Mapping

from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.volumes.case import LABEL_SET, Case, is_scan, listed, stem

CONTRASTS = (("t1", "t1n"), ("t1ce", "t1c"), ("t2", "t2w"), ("flair", "t2f"))  # in channel order
LABELS = ("seg", "gtv")
MISNAMED = re.compile(r".*[._-]segm?", re.IGNORECASE)  # subject 355 of 2020 holds W39_1998.09.19_Segm.nii
OTHER_CONTRASTS = {
    name for n in (0, 2, 3) for name in CONTRASTS[n]
}  # meningioma before radiotherapy has none
VISIT = re.compile(r"(BraTS-[A-Z]+(?:-[A-Z]+)?-\d+)-\d+")  # person and time point, since 2023


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per subject folder; images are T1, T1 with contrast agent, T2, FLAIR, or the second alone (MEN-RT).

    Subjects that lack a contrast, or their labels where others have them, are left out with a warning. One with two
    files for a contrast or for its label map has a problem.

    Raises:
        FileError: no such folder.
        EmptyError: no subject folder in it.
        MismatchError: every subject lacks a contrast or has two files for one.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise FileError(f"{root}: no such folder.")
    found = {folder: _files(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    found = {folder: files for folder, files in found.items() if files}
    if not found:
        raise EmptyError(f"{root}: no folder SUBJECT with SUBJECT_t1.nii.gz or SUBJECT-t1n.nii.gz in it.")
    names = {name for files in found.values() for name in files}
    wanted = CONTRASTS if names & OTHER_CONTRASTS or "gtv" not in names else CONTRASTS[1:2]
    lacking = {
        folder.name: missing for folder, files in found.items() if (missing := _missing(files, wanted))
    }
    cases = [
        _case(folder, _first(files), wanted) for folder, files in found.items() if folder.name not in lacking
    ]
    if not cases:
        name, missing = next(iter(lacking.items()))
        there = ", ".join(sorted(found[root / name]))
        raise MismatchError(f"{root / name}: no file for {', '.join(missing)}; found {there}.")
    cases = [case._replace(problem=_twice(root / case.subject, found[root / case.subject])) for case in cases]
    if lacking:
        shown = listed(f"{name} ({', '.join(missing)})" for name, missing in lacking.items())
        _leave_out(root, len(lacking), len(found), f"lack a contrast: {shown}")
    without = [case.subject for case in cases if not case.labels]
    if 0 < len(without) < len(cases):
        _leave_out(
            root, len(without), len(cases), f"have no label map ({' or '.join(LABELS)}): {listed(without)}"
        )
        cases = [case for case in cases if case.labels]
    return cases


def _leave_out(root: pathlib.Path, number: int, of: int, reason: str) -> None:
    warnings.warn(
        f"{root}: {number} of {of} subjects {reason}. They are left out; complete or remove them.",
        stacklevel=4,
    )


def _files(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """What comes after the subject's name -> files; the one file with another name that ends in Segm is the label."""
    paths = [path for path in sorted(folder.iterdir()) if is_scan(path)]
    named: dict[str, list[pathlib.Path]] = {}
    for path in paths:
        if stem(path).startswith((f"{folder.name}_", f"{folder.name}-")):
            named.setdefault(stem(path)[len(folder.name) + 1 :].lower(), []).append(path)
    misnamed = [path for path in paths if MISNAMED.fullmatch(stem(path))]
    if named and not {*LABELS} & {*named} and len(misnamed) == 1:
        named[LABELS[0]] = misnamed
    return named


def _first(files: Mapping[str, list[pathlib.Path]]) -> dict[str, pathlib.Path]:
    return {name: paths[0] for name, paths in files.items()}


def _twice(folder: pathlib.Path, files: Mapping[str, list[pathlib.Path]]) -> str:
    """Why a subject with two files for one contrast, in whatever spelling, cannot be used; "": it has one of each."""
    for spellings in (*CONTRASTS, *((name,) for name in LABELS)):
        paths = [path.name for name in spellings for path in files.get(name, [])]
        if len(paths) > 1:
            return f"{folder}: two files for {' or '.join(spellings)}: {', '.join(paths)}; keep one."
    return ""


def _missing(files: Iterable[str], wanted: Iterable[tuple[str, ...]]) -> list[str]:
    """The contrasts that none of the files is, in their spellings."""
    return [" or ".join(spellings) for spellings in wanted if not {*spellings} & {*files}]


def _case(folder: pathlib.Path, files: dict[str, pathlib.Path], wanted: Iterable[tuple[str, ...]]) -> Case:
    images = tuple(next(files[name] for name in spellings if name in files) for spellings in wanted)
    label = next((files[name] for name in LABELS if name in files), None)
    visit = VISIT.fullmatch(folder.name)
    return Case(folder.name, images, {LABEL_SET: label} if label else {}, person=visit[1] if visit else "")
