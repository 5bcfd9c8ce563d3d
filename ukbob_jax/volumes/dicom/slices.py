"""One DICOM file to its slices: one, the frames of an enhanced object, or the tiles of a mosaic.

Only the tags listed here and in `frames` and `mosaic` are read; names, dates and free text never are.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.errors import FileError, GeometryError
from ukbob_jax.volumes.dicom import codecs, frames, mosaic
from ukbob_jax.volumes.dicom.contrast import recognise
from ukbob_jax.volumes.dicom.library import is_dicom, library, parse, quiet

_GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
_PIXELS = (
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "HighBit",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
)
_ORDER = (  # used to group and to sort, then forgotten
    "AcquisitionNumber",
    "AcquisitionTime",
    "DiffusionBValue",
    "EchoTime",
    "ImageType",
    "InstanceNumber",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesTime",
    "SOPInstanceUID",
    "TemporalPositionIdentifier",
    "TriggerTime",
)
_FACTS = {  # tag: the store's attribute, its type, and the factor to its unit
    "BodyPartExamined": ("body_part", str, None),
    "FlipAngle": ("flip_angle_deg", float, 1.0),
    "MagneticFieldStrength": ("field_strength_t", float, 1.0),
    "Manufacturer": ("manufacturer", str, None),
    "ManufacturerModelName": ("scanner", str, None),
    "Modality": ("modality", str, None),
    "PatientSex": ("sex", str, None),
    "PatientSize": ("height_mm", float, 1000.0),
    "RepetitionTime": ("repetition_time_ms", float, 1.0),
}
TAGS = (*_GEOMETRY, *_PIXELS, *_ORDER, *_FACTS, *frames.TAGS)
_SEQUENCE = {
    "time point": "TemporalPositionIdentifier",
    "acquisition": "AcquisitionNumber",
    "instance": "InstanceNumber",
    "trigger": "TriggerTime",
}


class Slice(NamedTuple):
    """One image of a series.

    Attributes:
        pixels: rows columns; int16 where the values fit, else float32.
        position_mm: centre of the first pixel, DICOM's coordinates (left, posterior, superior), 3.
        along_row, along_column: unit vectors of growing column and of growing row index, 3 each.
        spacing_mm: between rows, between columns.
        series, instance: UIDs; of frames and tiles, the file's UID and their number.
        contrast: Dixon contrast, or "".
        contradicted: the image type names another contrast than the description.
        tags: what may tell the images of one series apart: kind, of `parts.KINDS`, to value.
        order: numbers that may tell in which order the images of a series were made: of the instance, and of the frame in
            it; of the trigger, ms; "time point" and "acquisition".
        acquired, made, number: AcquisitionTime and SeriesTime (HHMMSS.f text), SeriesNumber; to tell repeats apart.
        facts: technical attributes under the store's names.
    """

    pixels: np.ndarray
    position_mm: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    spacing_mm: tuple[float, float]
    series: str
    instance: str
    contrast: str
    contradicted: bool
    tags: Mapping[str, str]
    order: Mapping[str, tuple[float, ...]]
    acquired: str
    made: str
    number: int
    facts: dict[str, Any]


def read_slices(data: bytes, where: str) -> list[Slice]:
    """The slices in the bytes of one DICOM file; none for other files and for DICOM objects without an image.

    Values are those of the tags RescaleSlope and RescaleIntercept, of each frame where they differ; private scales, such
    as Philips' for "floating point" values, are not used.

    Args:
        data: the file.
        where: names it in messages.
    Raises:
        ConfigError: pydicom is not installed.
        FileError: the file is damaged, or of a kind that is not read.
        GeometryError: it does not say where the image lies.
    """
    library()
    if not is_dicom(data):
        return []
    try:
        with quiet():
            found = parse(data, TAGS)
            if not _is_image(found, where):
                return []
            _check_kind(found, where)
            if frames.is_enhanced(found):
                return _frames(frames.unfold(found, where), codecs.decode(found, where), where)
            one = _slice(found, codecs.decode(found, where), where)
            return _tiles(one, data, where) if mosaic.is_mosaic(found.get("ImageType") or ()) else [one]
    except (FileError, GeometryError):
        raise
    except Exception as error:  # pydicom raises nearly everything, with values of the header in the message
        raise FileError(f"{where}: damaged, or cut off ({type(error).__name__}). Fetch it again.") from error


class Heading(NamedTuple):
    """What an object is, before its pixels are read.

    Attributes:
        series: SeriesInstanceUID.
        foreign: name of the kind of an object that is no slice, such as "Segmentation"; "" for slices.
        description: SeriesDescription; free text, for the terminal only.
    """

    series: str = ""
    foreign: str = ""
    description: str = ""


def read_heading(data: bytes) -> Heading:
    """What the object in the bytes of a file is; empty where that cannot be read.

    No slices are objects that are not images (segmentations, structure sets, doses, presentation states), and screenshots
    and dose pages: secondary captures that do not say where they lie.

    Raises:
        ConfigError: pydicom is not installed.
    """
    library()
    if not is_dicom(data):
        return Heading()
    tags = ["SeriesInstanceUID", "SeriesDescription", "ImagePositionPatient"]
    try:
        with quiet():
            found = parse(data, tags, pixels=False)
            name = str(getattr(found.file_meta.get("MediaStorageSOPClassUID"), "name", ""))
            captured = "Secondary Capture" in name and not found.get("ImagePositionPatient")
            series, description = _text(found, "SeriesInstanceUID"), _text(found, "SeriesDescription")
    except Exception:  # damaged: `read_slices` says so, if it is needed
        return Heading()
    foreign = name.endswith("Storage") and (captured or not name.endswith("Image Storage"))
    return Heading(series, name.removesuffix(" Storage") if foreign else "", description)


def _is_image(found: Any, where: str) -> bool:
    """Whether the object is an image of a series; one without its pixels is a file cut off."""
    kind = getattr(found.file_meta.get("MediaStorageSOPClassUID"), "name", "")
    if kind.endswith("Image Storage") and not ("PixelData" in found and found.get("SeriesInstanceUID")):
        raise FileError(f"{where}: an image without pixels or series: the file is cut off. Fetch it again.")
    return "PixelData" in found and bool(found.get("SeriesInstanceUID"))


def _check_kind(found: Any, where: str) -> None:
    count, samples = int(found.get("NumberOfFrames") or 1), int(found.get("SamplesPerPixel") or 1)
    if count > 1 and not frames.is_enhanced(found):
        raise FileError(
            f"{where}: {count} frames in one file that does not say where each lies (no per-frame functional groups). "
            "Convert it to one file per slice, or to NIfTI."
        )
    if samples > 1:
        raise FileError(f"{where}: a colour image ({samples} samples per pixel); expected grey values.")
    if found.get("ModalityLUTSequence"):
        raise FileError(
            f"{where}: a table (ModalityLUTSequence) turns its stored values into physical ones, which is not read. "
            "Export it again with RescaleSlope and RescaleIntercept, or convert it to NIfTI."
        )


def _frames(headers: list[Any], pixels: np.ndarray, where: str) -> list[Slice]:
    """The frames of an enhanced object."""
    made = []
    for number, (header, values) in enumerate(zip(headers, pixels.reshape(-1, *pixels.shape[-2:])), 1):
        one = _slice(header, values, f"{where}: frame {number}")
        order = {**one.order, "instance": (*one.order.get("instance", ()), number)}
        made.append(one._replace(instance=f"{one.instance} {number}", order=order))
    return made


def _tiles(whole: Slice, data: bytes, where: str) -> list[Slice]:
    """The slices of a Siemens mosaic."""
    normal, size = np.cross(whole.along_row, whole.along_column), whole.pixels.shape
    layout = mosaic.read_layout(data, normal, size, where)
    directions = whole.along_row, whole.along_column
    first = mosaic.corner_mm(whole.position_mm, directions, whole.spacing_mm, size, layout)
    return [
        whole._replace(
            pixels=tile,
            position_mm=first + number * layout.step_mm,
            instance=f"{whole.instance} {number}",
        )
        for number, tile in enumerate(mosaic.tiles(whole.pixels, layout))
    ]


def _slice(found: Any, pixels: np.ndarray, where: str) -> Slice:
    """One slice with its stored values."""
    for tag in _GEOMETRY:
        if found.get(tag) is None:
            raise GeometryError(f"{where}: no {tag}, so where the image lies is not known. Export it again.")
    directions = np.array(found.ImageOrientationPatient, np.float64).reshape(2, 3)
    position = np.array(found.ImagePositionPatient, np.float64).reshape(3)
    spacing = tuple(float(length) for length in found.PixelSpacing)
    lengths = np.linalg.norm(directions, axis=1)
    finite = np.isfinite([*directions.ravel(), *position, *spacing]).all()
    if not finite or len(spacing) != 2 or min(spacing) <= 0 or np.abs(lengths - 1).max() > 1e-3:
        raise GeometryError(
            f"{where}: orientation {directions.tolist()}, pixel spacing {spacing}: not a plane in mm."
        )
    contrast, contradicted = recognise(_text(found, "SeriesDescription"), found.get("ImageType") or ())
    return Slice(
        pixels=_values(found, pixels),
        position_mm=position,
        along_row=directions[0] / lengths[0],
        along_column=directions[1] / lengths[1],
        spacing_mm=spacing,
        series=_text(found, "SeriesInstanceUID"),
        instance=_text(found, "SOPInstanceUID"),
        contrast=contrast,
        contradicted=contradicted,
        tags=_tags(found, contrast),
        order=_order(found),
        acquired=_text(found, "AcquisitionTime"),
        made=_text(found, "SeriesTime"),
        number=int(found.get("SeriesNumber") or 0),
        facts=_facts(found),
    )


def _values(found: Any, pixels: np.ndarray) -> np.ndarray:
    """Rescaled pixels, rows columns."""
    slope, intercept = float(found.get("RescaleSlope") or 1), float(found.get("RescaleIntercept") or 0)
    if (slope, intercept) != (1.0, 0.0):
        pixels = pixels * np.float32(slope) + np.float32(intercept)
    limits = np.iinfo(np.int16)
    fits = pixels.min() >= limits.min and pixels.max() <= limits.max
    whole = pixels.dtype.kind in "iu" or (np.rint(pixels) == pixels).all()
    return pixels.astype(np.int16 if fits and whole else np.float32)


def _tags(found: Any, contrast: str) -> dict[str, str]:
    """What is said of the image's contrast, echo, diffusion weighting, kind, stack, time point and acquisition."""
    kind = [_line(token) for token in list(found.get("ImageType") or ())[2:]]
    component = _text(found, "ComplexImageComponent")
    tags = {
        "contrast": contrast,
        "image type": " ".join([*kind, *([component] if component[:1] not in ("", *kind) else [])]),
        "stack": _text(found, "StackID"),
        "time point": _text(found, "TemporalPositionIdentifier"),
        "acquisition": _text(found, "AcquisitionNumber"),
        "dimension": " ".join(map(str, _several(found.get("DimensionIndexValues")))),
    }
    for name, tag, unit in (("echo time", "EchoTime", "ms"), ("b-value", "DiffusionBValue", "s/mm2")):
        try:
            tags[name] = f"{_finite(found.get(tag)):.6g} {unit}"
        except (TypeError, ValueError):
            continue  # not said, or no number
    return {name: value for name, value in tags.items() if value}


def _order(found: Any) -> dict[str, tuple[float, ...]]:
    """Numbers that may tell in which order images were made."""
    order = {}
    for name, tag in _SEQUENCE.items():
        try:
            order[name] = (_finite(found.get(tag)),)
        except (TypeError, ValueError):
            continue  # not said, or no number
    return order


def _several(value: Any) -> list[Any]:
    """The values of an element that may have one, several or none."""
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


def _facts(found: Any) -> dict[str, Any]:
    facts = {}
    for tag, (name, kind, factor) in _FACTS.items():
        try:
            value = found.get(tag)
            if value not in (None, ""):
                facts[name] = str(value) if kind is str else round(_finite(value) * factor, 3)
        except (TypeError, ValueError):
            continue  # no image is lost for a field strength that is no number
    return facts


def _finite(value: Any) -> float:
    """The number; ValueError for NaN and infinity, which no store holds."""
    if not np.isfinite(number := float(value)):
        raise ValueError("not finite")
    return number


def _text(found: Any, tag: str) -> str:
    return _line(found.get(tag) or "")


def _line(value: Any) -> str:
    """A value as text that fits into a message: one line, without what a damaged header may hold."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
