"""Slices to volumes: one series each, sorted by where the slices lie, refused where some are missing or foreign."""

import collections
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax import advice
from ukbob_jax.errors import EmptyError, FileError, GeometryError, InputError
from ukbob_jax.volumes.dicom.parts import Part, split
from ukbob_jax.volumes.dicom.slices import Slice, library, read_heading, read_slice
from ukbob_jax.volumes.resample import LINEAR
from ukbob_jax.volumes.volume import Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHOWN = 4  # positions named in a message
_ASIDE_MM = 0.1  # slices may be shifted sideways so far
_LISTED = 12  # images named in a message


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
    """One series of DICOM files in `folder` and the folders below it.

    Objects that are no slices (dose pages, segmentations, structure sets) are left out with a warning. A series of
    several acquisitions, echoes, contrasts or b-values is one of them: `series` says which.

    Args:
        series: SeriesInstanceUID to read where there are several, `UID:2` for its second image; files of other series
            are then passed over, whatever they are.
    Returns:
        `x y z` in RAS, int16 or float32 with the rescale slope and intercept applied (HU in CT).
    Raises:
        ConfigError: pydicom is not installed.
        EmptyError: no DICOM image is there.
        FileError: no such folder, a damaged file, or several images and none chosen.
        GeometryError: slices are missing, doubled or unevenly spaced.
    """
    folder = pathlib.Path(folder)
    library()
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of DICOM files.")
    images = _images(folder, series.split(":")[0])
    if series in images:
        return build(images[series].slices, str(folder), straighten=True).volume
    if len(images) == 1 and not series:
        return build(next(iter(images.values())).slices, str(folder), straighten=True).volume
    chosen = {name: part for name, part in images.items() if name.split(":")[0] == series} or images
    what = f"no series {series}; there are" if series and chosen is images else f"{len(chosen)} images:"
    listed = "; ".join(_describe(name, part) for name, part in list(chosen.items())[:_LISTED])
    more = f"; and {len(chosen) - _LISTED} more" if len(chosen) > _LISTED else ""
    raise FileError(
        f"{folder}: {what} {listed}{more}. "
        + (advice.fix("Choose one with {}.", "series", "UID") or "Move the others to another folder.")
    )


def _images(folder: pathlib.Path, uid: str) -> dict[str, Part]:
    """Every image of a folder under `UID`, or `UID:1`, `UID:2` where a series has several; only those of `uid`, if given.

    Raises:
        EmptyError: there is none.
        FileError, GeometryError: as `read_slice`.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    foreign, described, slices = collections.Counter(), {}, []
    for path in paths:
        data = path.read_bytes()
        heading = read_heading(data)
        described.setdefault(heading.series, heading.description)
        if heading.foreign:
            foreign[heading.foreign] += 1
        elif uid in ("", heading.series) and (slice_ := read_slice(data, str(path))):
            slices.append(slice_)
    if foreign:
        kinds = ", ".join(f"{name} ({count})" for name, count in sorted(foreign.items()))
        warnings.warn(
            f"{folder}: left out {foreign.total()} objects that are no slices: {kinds}.", stacklevel=4
        )
    if uid and not slices:
        return _images(folder, "")  # to say which there are
    if not slices:
        raise EmptyError(
            f"{folder}: no DICOM image among its {len(paths)} files. Name the folder that holds them."
        )
    images: dict[str, Part] = {}
    for name, members in group(slices).items():
        found = [part._replace(description=described.get(name, "")) for part in split(members)]
        images |= {
            name if len(found) == 1 else f"{name}:{number}": part for number, part in enumerate(found, 1)
        }
    return images


def _describe(name: str, part: Part) -> str:
    """An image of a folder in a message: what it is called, its size and spacing."""
    first = part.slices[0]
    rows, columns = first.pixels.shape
    told = ", ".join(filter(None, (part.description, part.label)))
    along = np.sort([s.position_mm @ np.cross(first.along_row, first.along_column) for s in part.slices])
    lengths = [*reversed(first.spacing_mm), *([float(np.median(np.diff(along)))] if len(along) > 1 else [])]
    spacing = " x ".join(f"{length:.4g}" for length in lengths)
    size = f"{columns} x {rows}, {len(part.slices)} slices, {spacing} mm"
    return f"{name} ({told + ', ' if told else ''}{size})"


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


def build(slices: Sequence[Slice], where: str, straighten: bool = False) -> Series:
    """One series.

    Args:
        slices: with one SeriesInstanceUID, in any order.
        where: begins the message.
        straighten: resample the stack of a tilted gantry, whose slices are shifted alike, with a warning; else refuse it.
    Raises:
        GeometryError: slices are missing, doubled, unevenly or obliquely stacked, or differ in size, spacing,
            orientation or contrast, which means that several series are mixed.
    """
    name = f"{where}: series {slices[0].series}"
    slices = _unique(slices)
    first = slices[0]
    _check_alike(slices, name)
    if len(found := split(slices)) > 1:
        labels = ", ".join(part.label for part in found[:_SHOWN])
        raise GeometryError(
            f"{name}: {len(found)} images under one UID ({labels}), whose slices must not be mixed. Export it again."
        )
    if len(slices) < 2:
        raise GeometryError(f"{name}: a single slice is no volume; slices are missing.")
    normal = np.cross(first.along_row, first.along_column)
    positions = np.array([slice_.position_mm for slice_ in slices])  # n 3
    order = np.argsort(positions @ normal, kind="stable")
    positions, slices = positions[order], [slices[i] for i in order]
    step = _check_stack(positions, normal, name)
    shift = _check_aside(positions, normal, name, straighten)  # mm from slice to slice, 3
    affine = np.eye(4)  # columns of the pixel array are x, its rows y
    affine[:3, 0] = first.along_row * first.spacing_mm[1]
    affine[:3, 1] = first.along_column * first.spacing_mm[0]
    affine[:3, 2] = normal * step + shift
    affine[:3, 3] = positions[0]
    array = np.stack([slice_.pixels.T for slice_ in slices], axis=-1)
    volume = Volume(array, LPS_TO_RAS @ affine)
    volume = (_straight(volume, name) if shift.any() else volume).to_ras()
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
    return float((along[-1] - along[0]) / (len(along) - 1))


def _check_aside(positions: np.ndarray, normal: np.ndarray, name: str, straighten: bool) -> np.ndarray:
    """How far each slice is shifted sideways from the one before, mm, 3; zeros where none is."""
    line = positions - positions[0]
    across = line - np.outer(line @ normal, normal)  # n 3
    aside = float(np.abs(across).max())
    if aside <= _ASIDE_MM:
        return np.zeros(3)
    shift = across[-1] / (len(across) - 1)
    uneven = float(np.abs(across - np.outer(np.arange(len(across)), shift)).max())
    if not straighten or uneven > _ASIDE_MM:
        raise GeometryError(
            f"{name}: its slices are shifted sideways by {aside:.2f} mm. Resample it to a straight stack."
        )
    return shift


def _straight(volume: Volume, name: str) -> Volume:
    """The sheared stack of a tilted gantry on a grid at right angles that covers it; what lies outside is its minimum."""
    spacing = volume.spacing_mm
    rows, columns, step = volume.affine[:3, 0], volume.affine[:3, 1], volume.affine[:3, 2]
    normal = np.cross(rows / spacing[0], columns / spacing[1])
    normal *= np.sign(normal @ step)
    drift = np.array([step @ rows / spacing[0] ** 2, step @ columns / spacing[1] ** 2])  # voxels a slice
    total = drift * (volume.shape[2] - 1)
    before, after = np.ceil(np.maximum(-total, 0) - 1e-6), np.ceil(np.maximum(total, 0) - 1e-6)
    affine = volume.affine.copy()
    affine[:3, 2] = normal * (normal @ step)
    affine[:3, 3] -= before[0] * rows + before[1] * columns
    size = np.array(volume.shape[:2]) + (before + after).astype(int)
    grid = Volume(np.zeros((*size, volume.shape[2]), np.uint8), affine)
    tilt = np.degrees(np.arctan2(np.linalg.norm(step - affine[:3, 2]), normal @ step))
    warnings.warn(
        f"{name}: the gantry was tilted by {tilt:.1f} degrees; its slices were resampled to a straight stack.",
        stacklevel=4,
    )
    array = volume.resample_like(grid, LINEAR).array
    for k in range(volume.shape[2]):  # a slice moves within its own plane
        for axis in (0, 1):
            places = np.arange(size[axis]) - before[axis] - drift[axis] * k
            outside = (places < -0.5) | (places > volume.shape[axis] - 0.5)
            np.moveaxis(array, axis, 0)[outside, ..., k] = volume.array.min()
    return Volume(array, affine)


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
