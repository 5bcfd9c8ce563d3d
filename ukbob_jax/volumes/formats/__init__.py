"""Formats other than NIfTI, one adapter each: what a file holds, before its values are checked.

An adapter has `read(path) -> Stored`, `names(path)`, the label names in its header, and `write(path, array, affine,
names)` where the format can be written. Names and values are checked by `volumes.nifti.read_volume`, the same for
every format.
"""

import importlib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.errors import FileError

ENDINGS: Mapping[str, str] = {
    ".seg.nrrd": "itk",
    ".nrrd": "itk",
    ".nhdr": "itk",
    ".mha": "itk",
    ".mhd": "itk",
    ".mgz": "mgh",
    ".mgh": "mgh",
}


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
        array: x y z, or x y z c.
        affine: (4, 4) float64, voxel index to RAS+ mm.
        names: label id to name, where the file says so.
        oriented: the file says towards where its axes run.
    """

    array: np.ndarray
    affine: np.ndarray
    names: Mapping[int, str] = {}
    oriented: bool = True


def ending(path: pathlib.Path) -> str:
    """The ending of one of these formats; "" where it is none of them."""
    return next((e for e in ENDINGS if path.name.lower().endswith(e)), "")


def read(path: pathlib.Path) -> Stored:
    """The file as its format's adapter reads it; a file without a known ending must be a DICOM segmentation.

    Raises:
        FileError: missing, damaged, or the library that reads the format is not installed.
        GeometryError, ValuesError: as the adapter.
    """
    return _reader(path).read(path)


def names(path: pathlib.Path) -> dict[int, str]:
    """Label id to name as the header says; no voxel is read.

    Raises:
        FileError: as `read`.
    """
    return _reader(path).names(path)


def write(path: pathlib.Path, array: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> None:
    """Write in the format that the ending says.

    Raises:
        FileError: the library is not installed, or the file cannot be written.
    """
    _adapter(ENDINGS[ending(path)]).write(path, array, affine, names)


def library(name: str, path: pathlib.Path) -> Any:
    """Import an optional library.

    Raises:
        FileError: it is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FileError(
            f'{path}: reading or writing it needs {name}: pip install "ukbob-jax[formats]".'
        ) from error


def is_dicom(path: pathlib.Path) -> bool:
    """Whether the file begins as a DICOM file does."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _reader(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise FileError(f"{path}: {'a folder; expected a file' if path.is_dir() else 'no such file'}.")
    return _adapter(ENDINGS.get(ending(path), "dicom_seg"))


def _adapter(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
