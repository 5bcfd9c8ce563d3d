"""BIDS: sub-01[/ses-1]/anat/sub-01_ses-1_T1w.nii.gz, label maps as *_dseg under derivatives/PIPELINE/."""

import os
import pathlib
from collections.abc import Sequence

from ukbob_jax.errors import EmptyError, FileError, MismatchError
from ukbob_jax.volumes.case import Case, listed, scans, stem, unique


def list_cases(root: str | os.PathLike, *, contrasts: Sequence[str] = ("T1w",)) -> list[Case]:
    """One case per subject, session and run that has all contrasts; label sets are named after their pipeline.

    Args:
        root: the dataset's folder.
        contrasts: ends of the image names in channel order, such as ("acq-water_T1w", "acq-fat_T1w").
    Raises:
        FileError: no such folder.
        EmptyError: no image of these contrasts.
        MismatchError: a contrast is missing, two sessions have files of one name, or a pipeline has two label maps for
            one image.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise FileError(f"{root}: no such folder.")
    found: dict[pathlib.Path, dict[str, pathlib.Path]] = {}  # folder/subject key -> contrast -> file
    for folder in sorted({*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")}):
        for name, path in scans(folder).items():
            for contrast in contrasts:
                if name.endswith(f"_{contrast}"):
                    found.setdefault(folder / name[: -len(contrast) - 1], {})[contrast] = path
    if not found:
        raise EmptyError(f"{root}: no sub-*/anat image that ends in {' or '.join(contrasts)}.")
    if lacking := [key.name for key, images in found.items() if len(images) < len(contrasts)]:
        raise MismatchError(f"{root}: not all of {', '.join(contrasts)} for {listed(lacking)}.")
    names = [key.name for key in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MismatchError(
            f"{root}: in more than one folder: {listed(twice)}. Put the session into the name."
        )
    labels = _labels(root, list(found))
    return [
        Case(key.name, tuple(images[c] for c in contrasts), labels[key], person=key.name.split("_")[0])
        for key, images in found.items()
    ]


def _labels(root: pathlib.Path, keys: list[pathlib.Path]) -> dict[pathlib.Path, dict[str, pathlib.Path]]:
    """Label maps of each image: pipeline to file. A map belongs to the longest image key that starts its name."""
    named: dict[pathlib.Path, list[tuple[str, pathlib.Path]]] = {key: [] for key in keys}
    for path in sorted((root / "derivatives").glob("*/sub-*/**/*_dseg.nii*")):
        pipeline = path.relative_to(root / "derivatives").parts[0]
        folder = root / path.parent.relative_to(root / "derivatives" / pipeline)
        owners = [k for k in keys if k.parent == folder and stem(path).startswith(f"{k.name}_")]
        if owners:
            named[max(owners, key=lambda key: len(key.name))].append((pipeline, path))
    return {key: unique(pairs, key) for key, pairs in named.items()}
