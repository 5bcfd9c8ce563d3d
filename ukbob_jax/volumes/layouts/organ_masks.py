"""TotalSegmentator's dataset: a folder per subject with the scan and one mask per organ in segmentations/."""

import csv
import io
import os
import pathlib

from ukbob_jax import files
from ukbob_jax.errors import EmptyError, FileError
from ukbob_jax.volumes.case import LABEL_SET, Case

SCANS = ("ct.nii.gz", "mri.nii.gz")
MASKS = "segmentations"


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per subject folder; its label is the folder of masks, which `read_case` merges into one map.

    The split comes from meta.csv where there is one.

    A subject with two scans, or without its masks, has a problem.

    Raises:
        FileError: no such folder, or a meta.csv that cannot be read.
        EmptyError: no subject folders.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise FileError(f"{root}: no such folder.")
    scans_of: dict[str, list[pathlib.Path]] = {}
    for path in sorted(path for name in SCANS for path in root.glob(f"[!.]*/{name}")):
        scans_of.setdefault(path.parent.name, []).append(path)
    if not scans_of:
        raise EmptyError(f"{root}: no subject folder with {' or '.join(SCANS)} in it.")
    split = _splits(root / "meta.csv")
    return [_case(paths, split.get(name, "")) for name, paths in sorted(scans_of.items())]


def _case(scans: list[pathlib.Path], split: str) -> Case:
    folder, problem = scans[0].parent, ""
    if len(scans) > 1:
        problem = f"{folder}: with {' and '.join(path.name for path in scans)}; leave one scan per subject."
    elif not (folder / MASKS).is_dir():
        problem = f"{folder}: no folder {MASKS} with its masks. Fetch it again."
    return Case(folder.name, (scans[0],), {LABEL_SET: folder / MASKS}, split, problem=problem)


def _splits(path: pathlib.Path) -> dict[str, str]:
    """Subject to split from the columns image_id and split; empty without the file."""
    if not path.is_file():
        return {}
    text = files.read_text(path)
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    return {row["image_id"]: row["split"] for row in rows if row.get("image_id") and row.get("split")}
