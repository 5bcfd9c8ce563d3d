"""Which folder is a model folder of nnU-Net v2, and which one was meant where another was given."""

import os
import pathlib

from ukbob_jax.errors import FileError

PLANS = "plans.json"
_EXPECTED = "Dataset123_Name/TRAINER__PLANS__CONFIGURATION"
_SHOWN = 3  # folders named in a message


def is_folder(path: str | os.PathLike) -> bool:
    """Whether `path` is meant as an nnU-Net model folder: it has plans.json or folds, its name has three parts, or such
    a folder is above or below it; `find` then says which to give."""
    folder = pathlib.Path(path)
    if (folder / "checkpoints").is_dir():  # a workdir of ours, whatever its name
        return False
    itself = is_named(folder) or (folder / PLANS).is_file() or any(folder.glob("fold_*"))
    return itself or _above(folder) is not None or _is_archive(folder) or bool(_below(folder))


def is_named(folder: pathlib.Path) -> bool:
    """Whether the folder's name says trainer, plans and configuration."""
    return len(folder.resolve().name.split("__")) == 3


def find(path: str | os.PathLike) -> pathlib.Path:
    """The model folder `path`.

    Raises:
        FileError: it is none; says which folder near it is one.
    """
    folder = pathlib.Path(path)
    if (folder / PLANS).is_file():
        return folder
    if _is_archive(folder):
        raise FileError(f"{path}: an archive; unpack it, and give the folder .../{_EXPECTED} in it.")
    if (above := _above(folder)) is not None:
        raise FileError(f"{path}: a part of a model folder of nnU-Net; give the whole, {above}.")
    if not folder.is_dir():
        raise FileError(f"{path}: no such folder; expected .../{_EXPECTED}.")
    if below := _below(folder):
        more = f" and {len(below) - _SHOWN} more" if len(below) > _SHOWN else ""
        raise FileError(
            f"{path}: no {PLANS} in it, but below it; give one model folder: {', '.join(map(str, below[:_SHOWN]))}{more}."
        )
    raise FileError(f"{path}: no {PLANS} in it; give the folder TRAINER__PLANS__CONFIGURATION of a model.")


def _is_archive(path: pathlib.Path) -> bool:
    return path.suffix == ".zip" and path.is_file()


def _above(path: pathlib.Path) -> pathlib.Path | None:
    """The model folder that a fold, a checkpoint or plans.json itself is in."""
    for parent in pathlib.Path(os.path.abspath(path)).parents[:2]:
        if (parent / PLANS).is_file() and any(parent.glob("fold_*")):
            return parent
    return None


def _below(path: pathlib.Path) -> list[pathlib.Path]:
    """Model folders in a folder, or in the folders in it."""
    found = (file.parent for depth in ("*", "*/*") for file in path.glob(f"{depth}/{PLANS}"))
    return sorted(folder for folder in found if is_named(folder) or any(folder.glob("fold_*")))
