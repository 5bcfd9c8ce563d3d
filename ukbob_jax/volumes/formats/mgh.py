"""FreeSurfer's MGH and MGZ through nibabel."""

import gzip
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHHeader, MGHImage
from nibabel.spatialimages import HeaderDataError

from ukbob_jax import files
from ukbob_jax.errors import FileError, GeometryError, ValuesError
from ukbob_jax.volumes import gzip_bytes
from ukbob_jax.volumes.formats import Stored

GOOD_RAS = 28  # where the header says whether it gives an orientation
HEADER = 284  # bytes before the voxels
SLACK = 2**20  # bytes that may follow them: scan parameters and tags


def read(path: pathlib.Path) -> Stored:
    """The voxels and geometry.

    Raises:
        FileError: damaged or cut short.
        GeometryError: the file does not say how it is oriented.
    """
    try:
        stored = gzip_bytes.read(path)
        head = gzip_bytes.head(path, stored, HEADER).ljust(HEADER, b"\0")
        header: Any = MGHHeader(head, check=False)
        size = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
        image = MGHImage.from_bytes(gzip_bytes.inflate(path, stored, HEADER + size + SLACK))
        array = np.asarray(image.dataobj)
    except FileError:
        raise
    except (OSError, EOFError, ValueError, TypeError, KeyError, ImageFileError, HeaderDataError) as error:
        raise FileError(f"{path}: cannot be read: {' '.join(str(error).split()) or 'cut short'}.") from error
    if int.from_bytes(head[GOOD_RAS : GOOD_RAS + 2], "big") != 1:  # nibabel sets what its header says of it
        raise GeometryError(f"{path}: orientation unknown (goodRASFlag is 0); set it with mri_convert.")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    native = array.astype(array.dtype.newbyteorder("="), order="F")
    return Stored(native, np.array(image.affine, np.float64))


def names(path: pathlib.Path) -> dict[int, str]:
    """Nothing: the format's header names no ids."""
    return {}


def write(path: pathlib.Path, array: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> None:
    """Write in one step; MGH holds no names, and int16, int32, uint8 and float32 alone.

    Raises:
        FileError: the file cannot be written.
        ValuesError: integers beyond 32 bits with a sign.
    """
    if array.dtype.kind in "iu" and array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValuesError(f"{path}: values up to {array.max()}; MGH holds integers up to {2**31 - 1}.")
    array = array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array
    if array.dtype not in (np.uint8, np.int16, np.int32, np.float32):
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
    voxels: Any = array  # nibabel's types want another kind of array
    data = MGHImage(voxels, affine).to_bytes()
    files.write_bytes(path, gzip.compress(data, 6, mtime=0) if path.suffix.lower() == ".mgz" else data)
