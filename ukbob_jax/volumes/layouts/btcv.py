"""BTCV as it is downloaded: img/img0001.nii.gz and label/label0001.nii.gz."""

import os
import pathlib

from ukbob_jax.errors import MismatchError
from ukbob_jax.volumes.case import Case, grouped, listed, one_case, tell_unused


def list_cases(root: str | os.PathLike) -> list[Case]:
    """One case per image, named like it; without a folder `label`, images alone.

    An image without its label map, or with another name, has a problem.

    Args:
        root: the folder that holds `img` and `label`.
    Raises:
        FileError: missing or empty folders.
        MismatchError: no image has a label map.
    """
    root = pathlib.Path(root)
    images = grouped(root / "img")
    labels = grouped(root / "label") if (root / "label").is_dir() else None
    if labels is None:
        return [_case(name, paths, None) for name, paths in images.items()]
    matched = {name: labels.get(f"label{name.removeprefix('img')}", []) for name in images}
    used = {path for found in matched.values() for path in found}
    unused = [path for paths in labels.values() for path in paths if path not in used]
    if not used:
        named = f"images {listed(images)}, labels {listed(labels)}"
        raise MismatchError(f"{root}: images and labels do not match: {named}. Expected img0001, label0001.")
    tell_unused(unused, root / "label")
    return [_case(name, paths, matched[name]) for name, paths in images.items()]


def _case(name: str, images: list[pathlib.Path], labels: list[pathlib.Path] | None) -> Case:
    known = name.startswith("img") and name[3:].isdigit()
    return one_case(
        name, images, labels, "" if known else f"{images[0]}: not img and a number, as BTCV names its files."
    )
