"""The objects that one image of a folder of DICOM files was read from, for results that refer to them."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.volumes.dicom.folder import chosen_images
from ukbob_jax.volumes.dicom.library import is_dicom, library, quiet
from ukbob_jax.volumes.dicom.series import LPS_TO_RAS
from ukbob_jax.volumes.dicom.slices import Slice
from ukbob_jax.volumes.volume import Volume


class Sources(NamedTuple):
    """Where an image comes from.

    Attributes:
        headers: pydicom data sets without pixels: one per slice in the order of the grid's last axis, or the one object
            that holds all slices (enhanced multi-frame, mosaic).
        grid: the stack as it was acquired, without voxels of its own: column, row, slice -> RAS mm. Slices of a tilted
            gantry are shifted against each other in it.
    """

    headers: list[Any]
    grid: Volume

    @property
    def one_each(self) -> bool:
        """Whether every slice is an object of its own."""
        return len(self.headers) == self.grid.shape[2]


def read_sources(
    folder: str | os.PathLike, series: str = "", *, channels: bool | Sequence[str] = False
) -> Sources:
    """The objects of the image that `read_series` reads with the same arguments; of several channels, the first's.

    Raises:
        ConfigError, EmptyError, FileError, GeometryError: as `read_series`.
    """
    folder = pathlib.Path(folder)
    first = next(iter(chosen_images(folder, series, channels).values()))
    slices = _sorted({slice_.instance: slice_ for slice_ in first.slices}.values())
    wanted = list(dict.fromkeys(slice_.instance.split(" ")[0] for slice_ in slices))
    found = {uid: header for uid, header in _headers(folder) if uid in wanted}
    return Sources([found[uid] for uid in wanted], _grid(slices))


def _sorted(slices: Any) -> list[Slice]:
    """In the order of their places along the normal."""
    first = next(iter(slices))
    normal = np.cross(first.along_row, first.along_column)
    return sorted(slices, key=lambda slice_: float(slice_.position_mm @ normal))


def _grid(slices: list[Slice]) -> Volume:
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.spacing_mm[1]
    affine[:3, 1] = first.along_column * first.spacing_mm[0]
    affine[:3, 2] = (last.position_mm - first.position_mm) / (len(slices) - 1)
    affine[:3, 3] = first.position_mm
    rows, columns = first.pixels.shape
    empty = np.broadcast_to(np.uint8(0), (columns, rows, len(slices)))
    return Volume(empty, LPS_TO_RAS @ affine)


def _headers(folder: pathlib.Path) -> Any:
    """SOPInstanceUID and data set of every DICOM file."""
    pydicom = library()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not is_dicom(path.read_bytes()):
            continue
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        yield str(header.get("SOPInstanceUID", "")), header
