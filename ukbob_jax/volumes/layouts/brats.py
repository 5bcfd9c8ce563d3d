"""BraTS: a folder per subject with one file per contrast and the tumour's label map, in either of its spellings.

Until 2021 SUBJECT/SUBJECT_t1.nii.gz, _t1ce, _t2, _flair, _seg; since 2023 SUBJECT-t1n, -t1c, -t2w, -t2f, -seg.
"""

import os
import pathlib
import re

from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.volumes.case import LABEL_SET, Case, listed, scans

CONTRASTS = (("t1", "t1n"), ("t1ce", "t1c"), ("t2", "t2w"), ("flair", "t2f"))  # in channel order
LABEL = "seg"
VISIT = re.compile(r"(BraTS-[A-Z]+-\d+)-\d+")  # person and time point, since 2023


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per subject folder; images are T1, T1 with contrast agent, T2, FLAIR.

    Raises:
        FileError: no such folder.
        EmptyError: no subject folder in it.
        MismatchError: a subject lacks a contrast, or some have labels and others none.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise FileError(f"{root}: no such folder.")
    cases = [_case(folder) for folder in sorted(root.iterdir()) if folder.is_dir() and any(_files(folder))]
    if not cases:
        raise EmptyError(f"{root}: no folder SUBJECT with SUBJECT_t1.nii.gz or SUBJECT-t1n.nii.gz in it.")
    without = [case.subject for case in cases if not case.labels]
    if 0 < len(without) < len(cases):
        raise MismatchError(
            f"{root}: {len(without)} of {len(cases)} subjects have no {LABEL}: {listed(without)}."
        )
    return cases


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """What comes after the subject's name -> file."""
    found = scans(folder) if any(folder.glob("*.nii*")) else {}
    start = len(folder.name) + 1
    return {
        name[start:]: path
        for name, path in found.items()
        if name.startswith((f"{folder.name}_", f"{folder.name}-"))
    }


def _case(folder: pathlib.Path) -> Case:
    found = _files(folder)
    images = []
    for spellings in CONTRASTS:
        name = next((name for name in spellings if name in found), None)
        if name is None:
            missing = " or ".join(spellings)
            raise MismatchError(f"{folder}: no file for {missing}; found {', '.join(sorted(found))}.")
        images.append(found[name])
    visit = VISIT.fullmatch(folder.name)
    labels = {LABEL_SET: found[LABEL]} if LABEL in found else {}
    return Case(folder.name, tuple(images), labels, person=visit[1] if visit else "")
