"""A UK Biobank neck-to-knee archive (field 20201) to one scan: unpack, sort, stitch, and say how good it is."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.errors import EmptyError, FileError, ValuesError
from ukbob_jax.volumes.dicom import archive, body, swap
from ukbob_jax.volumes.dicom.contrast import CONTRASTS
from ukbob_jax.volumes.dicom.library import library
from ukbob_jax.volumes.dicom.series import assemble
from ukbob_jax.volumes.dicom.slices import Slice, read_slices
from ukbob_jax.volumes.dicom.stations import Stations, arrange
from ukbob_jax.volumes.dicom.stitch import stitch
from ukbob_jax.volumes.volume import Volume

STATIONS = 6


class Dixon(NamedTuple):
    """A stitched scan.

    Attributes:
        image: `x y z c`, RAS, whole numbers where the scanner gives them (int16 where they fit), else float32.
        body: `x y z`, uint8, 1 in the body.
        station: `x y z`, uint8, from 1 at the head; 0 where no station was.
        attributes: technical facts under the store's names.
        quality: findings, JSON-able; see docs/uk_biobank.md.
    """

    image: Volume
    body: Volume
    station: Volume
    attributes: dict[str, Any]
    quality: dict[str, Any]


def read_archive(path: str | os.PathLike, contrasts: Sequence[str] = CONTRASTS) -> Stations:
    """The stations of one archive, by the tags of its DICOM files; its manifest is not read.

    Raises:
        ConfigError: pydicom is not installed.
        EmptyError: no DICOM image is in it.
        FileError: as `archive.unpack` and `read_slices`.
        MismatchError, GeometryError: as `arrange`.
    """
    library()
    slices: list[Slice] = []
    for number, data in archive.unpack(path):
        where = f"{path}: member {number}"
        if not any(data):  # without it, a series might be shorter unnoticed
            raise FileError(
                f"{where}: {'holds nothing but zeros' if data else 'is empty'}. Fetch the archive again."
            )
        slices += read_slices(data, where)
    if not slices:
        raise EmptyError(f"{path}: no DICOM image in it. Is it the archive of field 20201?")
    return arrange(*assemble(slices, str(path)), contrasts, str(path))


def join(stations: Stations, contrasts: Sequence[str], spacing_mm: Sequence[float], where: str) -> Dixon:
    """Stitch, find the body, and look for what is wrong.

    Args:
        contrasts: of the channels, in order.
        spacing_mm: of the grid; empty: the stations' own, as `stitch`.
        where: begins messages.
    Raises:
        GeometryError: as `stitch`.
        ValuesError: a contrast shows nothing.
    """
    found = stitch(stations.volumes, spacing_mm)
    array = found.image.array
    for channel, name in enumerate(contrasts):
        if array[..., channel].min() == array[..., channel].max():
            value = str(array[0, 0, 0, channel]).removesuffix(".0")
            raise ValuesError(f"{where}: {name} is {value} in every voxel. Fetch the archive again.")
    spacing, numbers = found.image.spacing_mm, found.station.array
    inside = body.body_mask(_signal(array, contrasts), spacing, numbers)
    halves = (
        swap.indicators(
            array[..., contrasts.index("fat")], array[..., contrasts.index("water")], inside, numbers, spacing
        )
        if {"fat", "water"} <= set(contrasts)
        else []
    )
    series = [one for station in stations.chosen for one in station]
    quality = {
        "stations": len(stations.volumes),
        "missing_stations": max(0, STATIONS - len(stations.volumes)),
        "gaps_mm": [list(gap) for gap in found.gaps_mm],
        "seam_costs": list(found.seam_costs),
        "swap": halves,
        "swapped": swap.suspected(halves),
        "repeated_series": stations.repeats,
        "other_series": stations.others,
        "broken_series": stations.broken,
        "contradicted_series": sum(one.contradicted for one in series),
        "body_ml": round(float(inside.sum() * np.prod(spacing) / 1000), 1),
    }
    affine = found.image.affine
    return Dixon(
        image=Volume(_as_acquired(array, stations.volumes), affine),
        body=Volume(inside.astype(np.uint8), affine),
        station=found.station,
        attributes=dict(stations.chosen[0][0].facts),
        quality=quality,
    )


def _as_acquired(array: np.ndarray, volumes: Sequence[Volume]) -> np.ndarray:
    """Rounded to whole numbers (int16 where they fit) if the stations hold nothing else; rescaled ones may not."""
    parts = (volume.array for volume in volumes)
    if not all(part.dtype.kind in "iu" or (np.rint(part) == part).all() for part in parts):
        return array
    whole = np.rint(array)
    limits = np.iinfo(np.int16)
    fits = limits.min <= whole.min() and whole.max() <= limits.max
    return whole.astype(np.int16 if fits else np.float32)


def _signal(array: np.ndarray, contrasts: Sequence[str]) -> np.ndarray:
    """What is bright in the whole body: in-phase, or the sum of all contrasts where it was not asked for."""
    return array[..., contrasts.index("in_phase")] if "in_phase" in contrasts else array.sum(-1)
