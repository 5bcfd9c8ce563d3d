"""One DICOM file to one slice. Only the tags listed here are read; names, dates and free text never are."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.errors import ConfigError, FileError, GeometryError
from ukbob_jax.volumes.dicom.contrast import recognise

_GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns")
_PIXELS = (
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RescaleIntercept",
    "RescaleSlope",
    "SamplesPerPixel",
)
_ORDER = (  # used to group and to sort, then forgotten
    "AcquisitionNumber",
    "AcquisitionTime",
    "DiffusionBValue",
    "EchoTime",
    "ImageType",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesTime",
    "SOPInstanceUID",
    "TemporalPositionIdentifier",
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
TAGS = (*_GEOMETRY, *_PIXELS, *_ORDER, *_FACTS)
_MAGIC = slice(128, 132)


class Slice(NamedTuple):
    """One image of a series.

    Attributes:
        pixels: rows columns; int16 where the values fit, else float32.
        position_mm: centre of the first pixel, DICOM's coordinates (left, posterior, superior), 3.
        along_row, along_column: unit vectors of growing column and of growing row index, 3 each.
        spacing_mm: between rows, between columns.
        series, instance: UIDs.
        contrast: Dixon contrast, or "".
        contradicted: the image type names another contrast than the description.
        tags: what may tell the images of one series apart: kind, of `parts.KINDS`, to value.
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
    acquired: str
    made: str
    number: int
    facts: dict[str, Any]


def library() -> ModuleType:
    """pydicom, which plain installations do without.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ConfigError(
            "Reading DICOM needs pydicom, which is not installed: pip install 'ukbob-jax[dicom]'."
        ) from error
    return pydicom


def read_slice(data: bytes, where: str) -> Slice | None:
    """The image in the bytes of one DICOM file; None for other files and for DICOM objects without an image.

    Args:
        data: the file.
        where: names it in messages.
    Raises:
        ConfigError: pydicom is not installed.
        FileError: the file is damaged, or of a kind that is not read.
        GeometryError: it does not say where the image lies.
    """
    if data[_MAGIC] != b"DICM":
        return None
    pydicom = library()
    try:
        with _quiet():
            found = pydicom.dcmread(io.BytesIO(data), specific_tags=list(TAGS))
            if not _is_image(found, where):
                return None
            _check_kind(found, where)
            return _slice(found, where)
    except (FileError, GeometryError):
        raise
    except Exception as error:  # pydicom raises nearly everything, with values of the header in the message
        raise FileError(
            f"{where}: damaged, or compressed in a way that is not read ({type(error).__name__}). "
            "Fetch it again, or decompress it with gdcmconv or dcmdjpeg."
        ) from error


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
    if data[_MAGIC] != b"DICM":
        return Heading()
    pydicom = library()
    tags = ["SeriesInstanceUID", "SeriesDescription", "ImagePositionPatient"]
    try:
        with _quiet():
            found = pydicom.dcmread(io.BytesIO(data), specific_tags=tags, stop_before_pixels=True)
            name = str(getattr(found.file_meta.get("MediaStorageSOPClassUID"), "name", ""))
    except Exception:  # damaged: `read_slice` says so, if it is needed
        return Heading()
    captured = "Secondary Capture" in name and not found.get("ImagePositionPatient")
    foreign = name.endswith("Storage") and (captured or not name.endswith("Image Storage"))
    kind = name.removesuffix(" Storage") if foreign else ""
    return Heading(_text(found, "SeriesInstanceUID"), kind, _text(found, "SeriesDescription"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom's remarks off the terminal: they repeat what the header says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_image(found: Any, where: str) -> bool:
    """Whether the object is an image of a series; one without its pixels is a file cut off."""
    kind = getattr(found.file_meta.get("MediaStorageSOPClassUID"), "name", "")
    if kind.endswith("Image Storage") and not ("PixelData" in found and found.get("SeriesInstanceUID")):
        raise FileError(f"{where}: an image without pixels or series: the file is cut off. Fetch it again.")
    return "PixelData" in found and bool(found.get("SeriesInstanceUID"))


def _check_kind(found: Any, where: str) -> None:
    frames, samples = int(found.get("NumberOfFrames") or 1), int(found.get("SamplesPerPixel") or 1)
    if frames > 1:
        raise FileError(
            f"{where}: {frames} frames in one file (enhanced DICOM). Convert it to one file per slice, or to NIfTI."
        )
    if samples > 1:
        raise FileError(f"{where}: a colour image ({samples} samples per pixel); expected grey values.")
    for tag in _GEOMETRY:
        if found.get(tag) is None:
            raise GeometryError(f"{where}: no {tag}, so where the image lies is not known. Export it again.")


def _slice(found: Any, where: str) -> Slice:
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
        pixels=_values(found),
        position_mm=position,
        along_row=directions[0] / lengths[0],
        along_column=directions[1] / lengths[1],
        spacing_mm=spacing,
        series=str(found.SeriesInstanceUID),
        instance=_text(found, "SOPInstanceUID"),
        contrast=contrast,
        contradicted=contradicted,
        tags=_tags(found, contrast),
        acquired=_text(found, "AcquisitionTime"),
        made=_text(found, "SeriesTime"),
        number=int(found.get("SeriesNumber") or 0),
        facts=_facts(found),
    )


def _values(found: Any) -> np.ndarray:
    """Rescaled pixels, rows columns."""
    pixels = found.pixel_array
    slope, intercept = float(found.get("RescaleSlope") or 1), float(found.get("RescaleIntercept") or 0)
    if (slope, intercept) != (1.0, 0.0):
        pixels = pixels * np.float32(slope) + np.float32(intercept)
    limits = np.iinfo(np.int16)
    fits = pixels.min() >= limits.min and pixels.max() <= limits.max
    whole = pixels.dtype.kind in "iu" or (np.rint(pixels) == pixels).all()
    return pixels.astype(np.int16 if fits and whole else np.float32)


def _tags(found: Any, contrast: str) -> dict[str, str]:
    """What is said of the image's contrast, echo, diffusion weighting, kind, time point and acquisition."""
    tags = {
        "contrast": contrast,
        "image type": " ".join(map(str, list(found.get("ImageType") or ())[2:])),
        "time point": _text(found, "TemporalPositionIdentifier"),
        "acquisition": _text(found, "AcquisitionNumber"),
    }
    for kind, tag, unit in (("echo time", "EchoTime", "ms"), ("b-value", "DiffusionBValue", "s/mm2")):
        try:
            tags[kind] = f"{_finite(found.get(tag)):.6g} {unit}"
        except (TypeError, ValueError):
            continue  # not said, or no number
    return {kind: value for kind, value in tags.items() if value}


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
    return str(found.get(tag) or "")
