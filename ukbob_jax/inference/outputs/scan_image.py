"""The voxels of a scan under its labels, for what is measured or drawn on both."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ukbob_jax.errors import MismatchError
from ukbob_jax.volumes.nifti import check_same_space, read_volume
from ukbob_jax.volumes.volume import Volume

Source = str | os.PathLike | Volume


def read(
    scan: Source | tuple[Source, ...],
    labels: Volume,
    contrasts: Sequence[str],
    nan: Literal["refuse", "zero"] = "refuse",
    series: str = "",
) -> Volume:
    """All contrasts, `x y z c`, in the scan's own units on the voxels of its labels.

    Args:
        scan: a file, a folder of DICOM files, a volume, or one of these per contrast.
        labels: of the scan.
        contrasts: a name per channel; of a Dixon scan in a folder of DICOM files these are read.
        nan, series: as for the prediction.
    Raises:
        MismatchError: the labels do not lie on the scan's voxels.
        FileError, GeometryError, ValuesError: as `read_volume`.
    """
    channels = []
    target = labels.to_ras()
    for path in scan if isinstance(scan, tuple) else (scan,):
        volume = path if isinstance(path, Volume) else _open(path, contrasts, nan, series)
        check_same_space(volume.to_ras(), target, str(path), "its labels")
        turned = volume.reorient(labels.orientation).array
        channels.append(turned if turned.ndim == 4 else turned[..., None])
    array = np.concatenate(channels, axis=-1)
    if array.shape[-1] != len(contrasts):
        raise MismatchError(f"{scan}: {array.shape[-1]} contrasts, the network names {len(contrasts)}.")
    return dataclasses.replace(labels, array=array)


def _open(
    path: str | os.PathLike, contrasts: Sequence[str], nan: Literal["refuse", "zero"], series: str
) -> Volume:
    """A file, or the DICOM series in a folder."""
    if pathlib.Path(path).is_dir():
        from ukbob_jax.volumes.dicom import dixon_names, read_series  # pydicom is optional

        return read_series(path, series, channels=dixon_names(contrasts))
    return read_volume(path, channels=True, nan=nan)
