"""A folder of DICOM files, as a PACS exports it, to the one image that is asked for."""

import collections
import os
import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import advice
from ukbob_jax.errors import EmptyError, FileError, GeometryError
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes.dicom.contrast import CONTRASTS, canonical
from ukbob_jax.volumes.dicom.library import is_dicom, library
from ukbob_jax.volumes.dicom.parts import TIMES, Part, split
from ukbob_jax.volumes.dicom.series import build, group
from ukbob_jax.volumes.dicom.slices import Slice, read_heading, read_slices
from ukbob_jax.volumes.volume import Volume

_LISTED = 12  # images named in a message
_EACH = 4  # repeats of one image that are named one by one
_SAME_GRID = 0.1  # voxels between the channels of one volume
_ENDINGS = (".dcm", ".dicom", ".ima")
_SELECTION = re.compile(r"(?P<uid>[^:]*)(?::(?P<first>\d+)(?:-(?P<last>\d+))?)?")

Images = dict[str, Part]


def read_series(
    folder: str | os.PathLike, series: str = "", *, channels: bool | Sequence[str] = False
) -> Volume:
    """One series of DICOM files in `folder` and the folders below it.

    Files of one slice, enhanced multi-frame files and Siemens mosaics are read. Objects that are no slices (dose pages,
    segmentations, structure sets) are left out with a warning. A series of several time points, acquisitions, echoes,
    contrasts or b-values is one of them: `series` says which. Values are those of RescaleSlope and RescaleIntercept;
    private scales of a manufacturer are not used.

    Args:
        series: SeriesInstanceUID to read where there are several, `UID:2` for its second image, `UID:2-9` for several
            with `channels=True`; files of other series are then passed over, whatever they are.
        channels: True reads the repeats of one image, or the contrasts of one Dixon scan, as channels: time points in
            their order, contrasts in that of `CONTRASTS`. Names of Dixon contrasts read these, in the order given, where
            the folder holds several images.
    Returns:
        `x y z` in RAS, `x y z c` with channels, int16 or float32 with the rescale slope and intercept applied (HU in CT).
    Raises:
        ConfigError: pydicom is not installed.
        EmptyError: no DICOM image is there.
        FileError: no such folder, a damaged or empty file, no decoder for its compression, or several images and none
            chosen.
        GeometryError: slices are missing, doubled or unevenly spaced, or channels lie on different grids.
    """
    volume, _ = read_with_facts(folder, series, channels=channels)
    return volume


def read_with_facts(
    folder: str | os.PathLike, series: str = "", *, channels: bool | Sequence[str] = False
) -> tuple[Volume, dict[str, Any]]:
    """As `read_series`, and technical attributes of the first slice under the store's names, such as modality.

    Raises:
        ConfigError, EmptyError, FileError, GeometryError: as `read_series`.
    """
    folder = pathlib.Path(folder)
    chosen = chosen_images(folder, series, channels)
    volumes = {name: build(part.slices, str(folder), straighten=True).volume for name, part in chosen.items()}
    volume = _stacked(volumes, str(folder)) if channels else next(iter(volumes.values()))
    return volume, dict(next(iter(chosen.values())).slices[0].facts)


def chosen_images(folder: pathlib.Path, series: str, channels: bool | Sequence[str]) -> Images:
    """The images that `read_series` takes with these arguments: one, or one for each channel.

    Raises:
        ConfigError, EmptyError, FileError, GeometryError: as `read_series`.
    """
    library()
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of DICOM files.")
    images = _images(folder, series.split(":")[0])
    chosen = _selected(images, series)
    names = () if isinstance(channels, bool) else tuple(map(canonical, channels))
    if len(chosen) > 1 and names and (found := _of_contrasts(chosen, names)):
        chosen = found
    elif len(chosen) != 1 and not (channels is True and (chosen := _together(chosen))):
        raise FileError(f"{folder}: {_listing(images, series, names)}")
    _check_whole(images, chosen, str(folder))
    return chosen


def _images(folder: pathlib.Path, uid: str) -> Images:
    """Every image of a folder under `UID`, or `UID:1`, `UID:2` where a series has several; only those of `uid`, if given.

    Raises:
        EmptyError: there is none.
        FileError, GeometryError: as `read_slices`.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    foreign, described, slices = collections.Counter(), {}, []
    lost, held = {}, set()  # files that hold nothing; folders of the images
    for path in paths:
        data = path.read_bytes()
        if problem := _problem(path, data):
            lost[path] = problem
            continue
        heading = read_heading(data)
        described.setdefault(heading.series, heading.description)
        if heading.foreign:
            foreign[heading.foreign] += 1
        elif uid in ("", heading.series):
            slices += (own := read_slices(data, str(path)))
            held |= {path.parent} if own else set()
    _check_none_lost({path: told for path, told in lost.items() if not uid or path.parent in held})
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
    return _numbered(slices, described)


def _problem(path: pathlib.Path, data: bytes) -> str:
    """Why a file that is named as DICOM files are holds no DICOM; "" for DICOM files, and for those of other names."""
    ending, name = path.suffix.lower(), path.name
    if name.startswith(".") or name.upper() == "DICOMDIR":
        return ""
    named = ending in _ENDINGS
    if not any(data) and (named or not ending or ending[1:].isdigit()):  # as IM0001, or a UID
        return "holds nothing but zeros" if data else "is empty"
    return "is no DICOM file, or its beginning is damaged" if named and not is_dicom(data) else ""


def _check_none_lost(lost: Mapping[pathlib.Path, str]) -> None:
    """Refuse a folder with files that may have been slices: without them, a series would be shorter unnoticed."""
    for path, problem in lost.items():
        more = f" {len(lost) - 1} other files too." if len(lost) > 1 else ""
        raise FileError(f"{path}: {problem}; copy it again, or take it out of the folder.{more}")


def _numbered(slices: Sequence[Slice], described: Mapping[str, str]) -> Images:
    """The images in slices under their names."""
    images: Images = {}
    for name, members in group(slices).items():
        found = [part._replace(description=described.get(name, "")) for part in split(members)]
        images |= {
            name if len(found) == 1 else f"{name}:{number}": part for number, part in enumerate(found, 1)
        }
    return images


def _selected(images: Images, series: str) -> Images:
    """The images that `series` names: all where it is empty, none where it names none."""
    if not series:
        return images
    if not (parsed := _SELECTION.fullmatch(series)):
        return {}
    uid, first, last = parsed["uid"], parsed["first"], parsed["last"]
    if not first:
        return {name: part for name, part in images.items() if name.split(":")[0] == uid}
    names = [f"{uid}:{number}" for number in range(int(first), int(last or first) + 1)]
    if not set(names) <= set(images):
        return {}
    return {name: images[name] for name in names}


def _of_contrasts(images: Images, names: Sequence[str]) -> Images:
    """The image of each contrast, in this order; empty where one of them has none or several."""
    found = [[name for name, part in images.items() if part.slices[0].contrast == one] for one in names]
    if not names or any(len(members) != 1 for members in found):
        return {}
    return {name: images[name] for [name] in found}


def _together(images: Images) -> Images:
    """The images if they are the repeats of one, or the contrasts of one Dixon scan in their order; else none."""
    series = {name.split(":")[0] for name in images}
    if len(series) == 1 and len({part.repeated for part in images.values()}) == 1:
        return images
    shown = {part.slices[0].contrast for part in images.values()}
    return _of_contrasts(images, [name for name in CONTRASTS if name in shown]) if "" not in shown else {}


def _check_whole(images: Images, chosen: Images, folder: str) -> None:
    """Refuse a time point with fewer slices than the others of its series: it was broken off, or files are missing.

    A few acquisitions may differ, such as the phases of a contrast agent.
    """
    for name, part in chosen.items():
        repeats = [
            len(other.slices)
            for key, other in images.items()
            if key.split(":")[0] == name.split(":")[0] and other.repeated == part.repeated
        ]
        times = {kind for kind, _ in part.values} & {*TIMES}
        usual = int(np.median(repeats))
        if len(part.slices) < usual and ("time point" in times or (times and len(repeats) > _EACH)):
            raise GeometryError(
                f"{folder}: series {name}: {part.label} has {len(part.slices)} slices, the others {usual}. Fetch the "
                "series again, or choose other images of it."
            )


def _stacked(volumes: Mapping[str, Volume], folder: str) -> Volume:
    """Volumes `x y z` as the channels of one, `x y z c`."""
    (name, first), *others = volumes.items()
    for other, volume in others:
        same = volume.shape == first.shape
        apart = affines.corner_distance_mm(first.affine, volume.affine, first.shape)
        if not same or apart > _SAME_GRID * min(first.spacing_mm):
            raise GeometryError(
                f"{folder}: series {name} has {first.shape} voxels, {other} {volume.shape}, corners {apart:.1f} mm apart: "
                f"they cannot be channels of one volume. {_choose()}"
            )
    return Volume(np.stack([volume.array for volume in volumes.values()], axis=-1), first.affine)


def _listing(images: Images, series: str, names: Sequence[str]) -> str:
    """Which images there are, for the message that asks to choose one."""
    uid = series.split(":")[0]
    of_uid = {name: part for name, part in images.items() if name.split(":")[0] == uid}
    chosen = of_uid or images
    lines = _lines(chosen)
    shown = {part.slices[0].contrast for part in chosen.values()}
    missing = [name for name in names if name not in shown]
    what = f"{len(chosen)} images:"
    if series and not _selected(images, series):
        what = f"no series {series}; there are"
    elif names and missing and shown != {""}:
        what = f"no {' and no '.join(missing)} among {len(chosen)} images:"
    more = f"; and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    return f"{what} {'; '.join(lines[:_LISTED])}{more}. {_choose()}"


def _choose() -> str:
    return advice.fix("Choose one with {}.", "series", "UID") or "Move the others to another folder."


def _lines(images: Images) -> list[str]:
    """A line per image; one for all where there are many repeats of one."""
    together: dict[tuple, list[str]] = {}
    for name, part in images.items():
        together.setdefault((name.split(":")[0], part.repeated), []).append(name)
    lines = []
    for names in together.values():
        if len(names) <= _EACH:
            lines += [_describe(name, images[name], images[name].label) for name in names]
            continue
        parts = [images[name] for name in names]
        kept = [f"{kind} {value or 'not said'}" for kind, value in parts[0].repeated]
        lines.append(_describe(f"{names[0]} to {names[-1]}", parts[0], ", ".join([*kept, _counted(parts)])))
    return lines


def _counted(parts: Sequence[Part]) -> str:
    """How many repeats of one image there are, such as "240 time points" or "31 volumes of b-value 0, 1000 s/mm2"."""
    weights = list(dict.fromkeys(value for p in parts for kind, value in p.values if kind == "b-value"))
    if weights:
        values = ", ".join(value.removesuffix(" s/mm2") for value in weights)
        return f"{len(parts)} volumes of b-value {values} s/mm2"
    kind = next(kind for kind, _ in parts[0].values if kind in TIMES)
    return f"{len(parts)} {kind}s" if kind != "dimension" else f"{len(parts)} volumes"


def _describe(name: str, part: Part, label: str) -> str:
    """An image of a folder in a message: what it is called, its size and spacing."""
    first = part.slices[0]
    rows, columns = first.pixels.shape
    told = ", ".join(filter(None, (part.description, label)))
    along = np.sort([s.position_mm @ np.cross(first.along_row, first.along_column) for s in part.slices])
    lengths = [*reversed(first.spacing_mm), *([float(np.median(np.diff(along)))] if len(along) > 1 else [])]
    spacing = " x ".join(f"{length:.4g}" for length in lengths)
    size = f"{columns} x {rows}, {len(part.slices)} slices, {spacing} mm"
    return f"{name} ({told + ', ' if told else ''}{size})"
