"""TotalSegmentator's dataset: a folder per subject with the scan and one mask per organ in segmentations/."""

import csv
import os
import pathlib

from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.volumes.case import LABEL_SET, Case, check_files, listed

SCANS = ("ct.nii.gz", "mri.nii.gz")
MASKS = "segmentations"


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per subject folder; its label is the folder of masks, which `read_case` merges into one map.

    The split comes from meta.csv where there is one.

    Raises:
        FileError: no such folder, or no subject with its masks.
        EmptyError: no subject folders.
        MismatchError: a subject with two scans.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise FileError(f"{root}: no such folder.")
    found = [path for name in SCANS for path in root.glob(f"*/{name}")]
    image_of = {path.parent.name: path for path in found}
    if len(image_of) < len(found):
        names = [path.parent.name for path in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise MismatchError(
            f"{root}: {listed(twice)} with {' and '.join(SCANS)}; leave one scan per subject."
        )
    if not image_of:
        raise EmptyError(f"{root}: no subject folder with {' or '.join(SCANS)} in it.")
    split = _splits(root / "meta.csv")
    cases = [
        Case(name, (path,), {LABEL_SET: path.parent / MASKS}, split.get(name, ""))
        for name, path in sorted(image_of.items())
    ]
    return check_files(cases, root)


def _splits(path: pathlib.Path) -> dict[str, str]:
    """Subject to split from the columns image_id and split; empty without the file."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        delimiter = ";" if ";" in file.readline() else ","
        file.seek(0)
        rows = list(csv.DictReader(file, delimiter=delimiter))
    return {row["image_id"]: row["split"] for row in rows if row.get("image_id") and row.get("split")}
