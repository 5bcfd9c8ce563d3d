"""Slices to volumes: one series each, sorted by where the slices lie, refused where some are missing or foreign."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.errors import EmptyError, FileError, GeometryError, InputError
from ukbob_jax.volumes.dicom.slices import Slice, library, read_slice
from ukbob_jax.volumes.volume import Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHOWN = 4  # positions or series named in a message


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """One series as a volume.

    Attributes:
        volume: `x y z`, RAS.
        uid: SeriesInstanceUID.
        contrast, contradicted, acquired, made, number, facts: as in `Slice`.
    """

    volume: Volume
    uid: str
    contrast: str
    contradicted: bool
    acquired: str
    made: str
    number: int
    facts: dict[str, Any]


class Defect(NamedTuple):
    """A series that cannot be used.

    Attributes:
        uid: SeriesInstanceUID.
        contrast: Dixon contrast of its first slice, or "".
        centre_mm: mean of its slices' centres, RAS, 3.
        reason: one line.
        kind: the error to raise if the series cannot be done without.
    """

    uid: str
    contrast: str
    centre_mm: np.ndarray
    reason: str
    kind: type[InputError]


def read_series(folder: str | os.PathLike, series: str = "") -> Volume:
    """The one series of DICOM files in `folder` and the folders below it.

    Args:
        series: SeriesInstanceUID to read where there are several.
    Returns:
        `x y z` in RAS, int16 or float32 with the rescale slope and intercept applied (HU in CT).
    Raises:
        ConfigError: pydicom is not installed.
        EmptyError: no DICOM image is there.
        FileError: no such folder, a damaged file, or several series and none chosen.
        GeometryError: slices are missing, doubled, unevenly spaced, or belong to several series.
    """
    folder = pathlib.Path(folder)
    library()
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of DICOM files.")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = group(slice_ for path in paths if (slice_ := read_slice(path.read_bytes(), str(path))))
    if not found:
        raise EmptyError(
            f"{folder}: no DICOM image among its {len(paths)} files. Name the folder that holds them."
        )
    if not series and len(found) > 1:
        listed = [f"{uid} ({len(members)} slices)" for uid, members in list(found.items())[:_SHOWN]]
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise FileError(f"{folder}: {len(found)} series: {', '.join(listed)}{more}. Name one by its UID.")
    if series and series not in found:
        raise FileError(f"{folder}: no series {series}; there are {', '.join(list(found)[:_SHOWN])}.")
    return build(found[series or next(iter(found))], str(folder)).volume


def group(slices: Iterable[Slice]) -> dict[str, list[Slice]]:
    """Slices by SeriesInstanceUID, in the order in which series first appear."""
    found: dict[str, list[Slice]] = {}
    for slice_ in slices:
        found.setdefault(slice_.series, []).append(slice_)
    return found


def assemble(slices: Iterable[Slice], where: str) -> tuple[list[Series], list[Defect]]:
    """Every series of an archive as a volume, and those that cannot be one."""
    built, defects = [], []
    for uid, members in group(slices).items():
        try:
            built.append(build(members, where))
        except InputError as error:
            centre = np.mean([LPS_TO_RAS[:3, :3] @ _centre(member) for member in members], axis=0)
            defects.append(Defect(uid, members[0].contrast, centre, str(error), type(error)))
    return built, defects


def build(slices: Sequence[Slice], where: str) -> Series:
    """One series.

    Args:
        slices: with one SeriesInstanceUID, in any order.
        where: begins the message.
    Raises:
        GeometryError: slices are missing, doubled, unevenly or obliquely stacked, or differ in size, spacing,
            orientation or contrast, which means that several series are mixed.
    """
    name = f"{where}: series {slices[0].series}"
    slices = _unique(slices)
    first = slices[0]
    _check_alike(slices, name)
    if len(slices) < 2:
        raise GeometryError(f"{name}: a single slice is no volume; slices are missing.")
    normal = np.cross(first.along_row, first.along_column)
    positions = np.array([slice_.position_mm for slice_ in slices])  # n 3
    order = np.argsort(positions @ normal, kind="stable")
    positions, slices = positions[order], [slices[i] for i in order]
    step = _check_stack(positions, normal, name)
    affine = np.eye(4)  # columns of the pixel array are x, its rows y
    affine[:3, 0] = first.along_row * first.spacing_mm[1]
    affine[:3, 1] = first.along_column * first.spacing_mm[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = positions[0]
    array = np.stack([slice_.pixels.T for slice_ in slices], axis=-1)
    volume = Volume(array, LPS_TO_RAS @ affine).to_ras()
    return Series(
        volume, first.series, *(getattr(first, field.name) for field in dataclasses.fields(Series)[2:])
    )


def _unique(slices: Sequence[Slice]) -> list[Slice]:
    """The slices without files that are there twice, byte for byte or at least pixel for pixel."""
    kept: dict[str, Slice] = {}
    for number, slice_ in enumerate(slices):
        key = slice_.instance or str(number)
        same = kept.get(key)
        if same is not None and not (
            np.array_equal(same.pixels, slice_.pixels)
            and np.array_equal(same.position_mm, slice_.position_mm)
        ):
            key = f"{key} {number}"  # one UID for two images: both stay, and are told as mixed
        kept.setdefault(key, slice_)
    return list(kept.values())


def _check_alike(slices: Sequence[Slice], name: str) -> None:
    first = slices[0]
    for what, values in (
        ("sizes", {slice_.pixels.shape for slice_ in slices}),
        ("pixel spacings in mm", {slice_.spacing_mm for slice_ in slices}),
        ("contrasts", {slice_.contrast for slice_ in slices}),
    ):
        if len(values) > 1:
            raise GeometryError(
                f"{name}: {len(slices)} slices of different {what} ({', '.join(map(str, sorted(values)[:_SHOWN]))}): "
                "several series are mixed under one UID. Export it again."
            )
    directions = np.array([[slice_.along_row, slice_.along_column] for slice_ in slices])  # n 2 3
    if (drift := np.abs(directions - directions[0]).max()) > 1e-3:
        raise GeometryError(
            f"{name}: its slices are turned against each other (direction cosines differ by {drift:.2g}): "
            "several series are mixed under one UID. Export it again."
        )
    if abs(first.along_row @ first.along_column) > 1e-3:
        raise GeometryError(
            f"{name}: rows and columns of its slices are not at right angles. Export it again."
        )


def _check_stack(positions: np.ndarray, normal: np.ndarray, name: str) -> float:
    """The distance between slices, mm, of sorted first-pixel positions `n 3`."""
    along = positions @ normal
    gaps = np.diff(along)
    step = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # of a few, the lower: missing slices widen gaps
    tolerance = 0.02 * abs(step) + 0.01  # headers round to hundredths
    at = f"along ({', '.join(f'{c:.3g}' for c in normal)})"
    doubled = np.flatnonzero(gaps <= tolerance)
    if len(doubled):
        raise GeometryError(
            f"{name}: two slices at {_listed(along[doubled])} mm {at}: two series are mixed under one UID, or one was "
            "exported twice. Export it again."
        )
    uneven = np.flatnonzero(np.abs(gaps - step) > tolerance)
    if len(uneven):
        between = [f"{along[i]:.2f} and {along[i + 1]:.2f} (gap {gaps[i]:.2f})" for i in uneven[:_SHOWN]]
        more = f" and {len(uneven) - _SHOWN} more places" if len(uneven) > _SHOWN else ""
        whole = np.abs(gaps[uneven] / step - np.round(gaps[uneven] / step)).max() * step <= tolerance
        missing = int(np.round(gaps[uneven] / step - 1).sum())
        what = f"{missing} slices missing" if whole else "unevenly spaced slices, some missing or foreign,"
        what = "1 slice missing" if whole and missing == 1 else what
        raise GeometryError(
            f"{name}: {what} between {'; '.join(between)}{more} mm {at}, where slices lie {step:.2f} mm apart. "
            "Fetch the series again."
        )
    line = positions - positions[0]
    aside = float(np.abs(line - np.outer(line @ normal, normal)).max())
    if aside > 0.1:  # mm; a tilted gantry, which would need resampling
        raise GeometryError(
            f"{name}: its slices are shifted sideways by {aside:.2f} mm. Resample it to a straight stack."
        )
    return float((along[-1] - along[0]) / (len(along) - 1))


def _centre(slice_: Slice) -> np.ndarray:
    rows, columns = slice_.pixels.shape
    return (
        slice_.position_mm
        + slice_.along_row * slice_.spacing_mm[1] * (columns - 1) / 2
        + slice_.along_column * slice_.spacing_mm[0] * (rows - 1) / 2
    )


def _listed(values: np.ndarray) -> str:
    more = f" and {len(values) - _SHOWN} more places" if len(values) > _SHOWN else ""
    return ", ".join(f"{value:.2f}" for value in values[:_SHOWN]) + more
