"""BTCV as it is downloaded: img/img0001.nii.gz and label/label0001.nii.gz."""

import os
import pathlib

from ukbob_jax.errors import FileError
from ukbob_jax.volumes.case import LABEL_SET, Case, scans


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per image, named like it; without a folder `label`, images alone.

    Args:
        root: the folder that holds `img` and `label`.
    Raises:
        FileError: missing or empty folders, or a name that is not img or label and a number.
        MismatchError: no image has its label map.
    """
    root = pathlib.Path(root)
    images = _numbered(root / "img", "img")
    if not (root / "label").is_dir():
        return [Case(f"img{number}", (path,), {}) for number, path in images.items()]
    labels = _numbered(root / "label", "label")
    cases = []
    for number in sorted(images.keys() | labels.keys()):
        lacking = [kind for kind, found in (("image", images), ("label map", labels)) if number not in found]
        cases.append(
            Case(
                f"img{number}",
                (images[number],) if number in images else (),
                {LABEL_SET: labels[number]} if number in labels else {},
                problem=f"{root}: images and labels do not match for {number}: no {lacking[0]}."
                if lacking
                else "",
            )
        )
    return cases


def _numbered(folder: pathlib.Path, start: str) -> dict[str, pathlib.Path]:
    """Number, as written -> file."""
    found = scans(folder)
    odd = [name for name in found if not (name.startswith(start) and name[len(start) :].isdigit())]
    if odd:
        raise FileError(f"{folder}: {odd[0]} is not {start} and a number, as BTCV names its files.")
    return {name[len(start) :]: path for name, path in found.items()}
