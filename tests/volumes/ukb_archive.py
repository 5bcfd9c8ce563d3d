"""Phantoms as UK Biobank's Dixon archives: six stations of four contrasts, with the tags a scanner writes, and defects.

Every name, date and number in the headers is made up; `SECRETS` lists what must not come out of the archive.
"""

import copy
import io
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from ukbob_jax import phantom
from ukbob_jax.volumes import resample
from ukbob_jax.volumes.volume import Volume

SECRETS = {
    "PatientName": "Quillfeather^Ottoline",
    "PatientID": "NHS5551234X",
    "PatientBirthDate": "19510817",
    "OtherPatientNames": "Marchbanks^Ottoline",
    "PatientAddress": "7 Larkspur Mews",
    "StudyDate": "20170423",
    "SeriesDate": "20170423",
    "AcquisitionDate": "20170423",
    "StudyTime": "083941.127000",
    "AccessionNumber": "ACC99871",
    "InstitutionName": "Imaging Centre Nowhere",
    "ReferringPhysicianName": "Pemberton^Doctor",
    "OperatorsName": "radiographer-kl",
    "StationName": "MRC41754",
    "DeviceSerialNumber": "SN-4175490",
    "StudyDescription": "recalled after fall in garden",
    "ImageComments": "subject anxious, call daughter Wilhelmina",
    "PatientComments": "pacemaker query resolved",
}
PRIVATE = "csa: Quillfeather private header"
SERIES_NOTE = "Ottoline repeat"  # free text in a series description

SUFFIX = {"fat": "F", "water": "W", "in_phase": "in", "opposed_phase": "opp"}
IMAGE_TYPE = {"fat": "FAT", "water": "WATER", "in_phase": "IN_PHASE", "opposed_phase": "OPP_PHASE"}
ECHO_MS = {"fat": 2.39, "water": 2.39, "in_phase": 4.77, "opposed_phase": 2.39}
ACQUIRED_ORDER = ("in_phase", "opposed_phase", "fat", "water")
OVERLAP_MM = 37.0


class Protocol(NamedTuple):
    """Stations from head to knee: share of the depth that is seen and slice distance, mm."""

    depth: tuple[float, ...] = (168 / 174, 1.0, 1.0, 1.0, 162 / 174, 156 / 174)
    slice_mm: tuple[float, ...] = (3.0, 4.5, 4.5, 4.5, 3.5, 4.0)


class Image(NamedTuple):
    """One DICOM file before it is written; defects change these."""

    station: int  # from 1 at the head
    contrast: str
    position: int  # slice, from the feet
    dataset: Dataset
    pixels: np.ndarray  # rows columns, uint16


def subject(seed: int, shape: tuple[int, int, int]) -> Volume:
    """The phantom's image `x y z c`, RAS."""
    image, _ = phantom.subject(seed, shape)
    return Volume(image, phantom.affine(shape))


def cut(truth: Volume, protocol: Protocol | None = None, gains: Sequence[float] = ()) -> list[Volume]:
    """Overlapping stations from head to knee that together cover the truth's height.

    Args:
        truth: `x y z c`.
        protocol: None: each station takes slices of the truth as they are, at its full depth.
        gains: a factor per station.
    """
    number, step = 6, truth.spacing_mm[2]
    height = (truth.shape[2] - 1) * step
    tall = (height + (number - 1) * OVERLAP_MM) / number
    stations = []
    for station in range(number):
        low = height - tall - station * (tall - OVERLAP_MM)
        if protocol is None:
            z = np.arange(
                max(0, round(low / step)), min(truth.shape[2] - 1, round((low + tall) / step)) + 1.0
            )
            y = np.arange(truth.shape[1])
        else:
            slices = int((tall + 1e-6) / protocol.slice_mm[station]) + 1
            top = min(low + tall, height)
            z = (top - protocol.slice_mm[station] * np.arange(slices)[::-1]) / step
            z = z[z >= -1e-9]
            kept = round(truth.shape[1] * protocol.depth[station])
            y = np.arange(kept) + (truth.shape[1] - kept) // 2
        stations.append(_sample(truth, y, z))
    gains = gains or (1.0,) * number
    return [Volume(one.array * np.float32(gain), one.affine) for one, gain in zip(stations, gains)]


def _sample(truth: Volume, y: np.ndarray, z: np.ndarray) -> Volume:
    """The truth at rows `y` and (fractional) slices `z`."""
    positions = [np.arange(truth.shape[0]), y, z]
    channels = [resample.along_axes(truth.array[..., c], positions, 1) for c in range(truth.array.shape[3])]
    affine = truth.affine.copy()
    affine[:3, 3] = (truth.affine @ [0, y[0], z[0], 1])[:3]
    affine[2, 2] *= z[1] - z[0]
    return Volume(np.rint(np.stack(channels, -1)), affine)


def images(stations: Sequence[Volume], contrasts: Sequence[str] = phantom.CONTRASTS) -> list[Image]:
    """All slices of all stations and contrasts, as a scanner would export them: rows run left, columns back."""
    found = []
    for number, station in enumerate(stations, 1):
        for contrast in (name for name in ACQUIRED_ORDER if name in contrasts):
            shared = header(number, contrast, station)
            volume = station.array[..., contrasts.index(contrast)]
            for z in range(station.shape[2]):
                pixels = volume[::-1, ::-1, z].T  # rows go back, columns go left
                corner = station.affine @ [station.shape[0] - 1, station.shape[1] - 1, z, 1]
                one = Dataset()
                one.update(shared)
                one.ImagePositionPatient = [f"{v:.9g}" for v in (-corner[0], -corner[1], corner[2])]
                one.SOPInstanceUID = generate_uid()
                one.InstanceNumber = station.shape[2] - z
                found.append(Image(number, contrast, z, one, pixels.astype(np.uint16)))
    return found


def header(number: int, contrast: str, station: Volume) -> Dataset:
    """What all slices of a series share."""
    one = Dataset()
    for tag, value in SECRETS.items():
        setattr(one, tag, value)
    one.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
    one.add_new(0x00291010, "OB", PRIVATE.encode())
    held = "BH_17s" if 2 <= number <= 4 else "noBH"
    one.SeriesDescription = f"Dixon_{held}_{SUFFIX[contrast]}"
    one.ImageType = ["DERIVED", "PRIMARY", "M", "DIXON", IMAGE_TYPE[contrast]]
    one.SeriesNumber = 4 * number + ACQUIRED_ORDER.index(contrast)
    one.SeriesTime = f"09{number:02d}{ACQUIRED_ORDER.index(contrast):02d}.25"  # hours, minutes, seconds
    one.AcquisitionTime = f"08{number:02d}05.75"
    one.SeriesInstanceUID, one.StudyInstanceUID = generate_uid(), "1.2.840.99999.1.20091231"
    one.SOPClassUID = MRImageStorage
    one.Modality, one.Manufacturer, one.ManufacturerModelName = "MR", "SIEMENS", "Aera"
    one.BodyPartExamined, one.PatientSex, one.PatientAge = "ABDOMEN", "F", "065Y"
    one.PatientSize, one.PatientWeight = "1.68", "71"
    one.MagneticFieldStrength, one.RepetitionTime, one.EchoTime = "1.5", "6.67", str(ECHO_MS[contrast])
    one.FlipAngle, one.PatientPosition = "10", "HFS"
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    x, y, z = station.spacing_mm
    one.PixelSpacing = [f"{y:.9g}", f"{x:.9g}"]
    one.SliceThickness = f"{z:.9g}"
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    return one


_encoded: dict[
    tuple[str, int], tuple[Image, bytes]
] = {}  # most images of an archive are those of the one before


def encode(image: Image) -> bytes:
    """One DICOM file."""
    key = image.dataset.SOPInstanceUID, id(image.pixels)
    if key not in _encoded:
        _encoded[key] = image, _encode(image)  # the image is kept, so that no other gets its id
    return _encoded[key][1]


def _encode(image: Image) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = image.dataset.SOPInstanceUID
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.update(image.dataset)
    file.Rows, file.Columns = image.pixels.shape
    file.PixelData = image.pixels.astype("<u2").tobytes()
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_zip(path: pathlib.Path, found: Sequence[Image], shuffle: int | None = 0) -> pathlib.Path:
    """The archive, its files in an order that says nothing, with a manifest that lies."""
    files = [(f"{image.dataset.SOPInstanceUID}.dcm", encode(image)) for image in found]
    if shuffle is not None:
        files = [files[i] for i in np.random.default_rng(shuffle).permutation(len(files))]
    manifest = "filename,patientid,date,seriesdescription\n" + "".join(
        f"{name},{SECRETS['PatientID']},{SECRETS['StudyDate']},Dixon_noBH_F\n" for name, _ in files
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("manfiest.cvs", manifest)
        for name, data in files:
            archive.writestr(name, data)
    return path


Defect = Callable[[list[Image]], list[Image]]


def of(found: Sequence[Image], station: int, contrast: str) -> list[Image]:
    """One series, from feet to head."""
    return [image for image in found if (image.station, image.contrast) == (station, contrast)]


def without(found: Sequence[Image], gone: Sequence[Image]) -> list[Image]:
    """All images but those."""
    names = {image.dataset.SOPInstanceUID for image in gone}
    return [image for image in found if image.dataset.SOPInstanceUID not in names]


def altered(image: Image, pixels: np.ndarray | None = None, **tags) -> Image:
    """A copy under a UID of its own, with other tags or pixels."""
    dataset = copy.deepcopy(image.dataset)
    dataset.SOPInstanceUID = generate_uid()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return image._replace(dataset=dataset, pixels=image.pixels if pixels is None else pixels)


def repeated(
    found: Sequence[Image], station: int, factor: float, contrasts: Sequence[str], later: bool
) -> list[Image]:
    """More series of a station, acquired later (or earlier), the same image times a factor."""
    more = []
    for contrast in contrasts:
        series = of(found, station, contrast)
        seconds = 50 if later else -50
        tags = {
            "SeriesInstanceUID": generate_uid(),
            "SeriesTime": f"{float(series[0].dataset.SeriesTime) + seconds:09.2f}",
            "AcquisitionTime": f"{float(series[0].dataset.AcquisitionTime) + seconds:09.2f}",
        }
        more += [altered(one, (one.pixels * factor).astype(np.uint16), **tags) for one in series]
    return [*found, *more]


def missing_slice(found: list[Image], station: int = 3, contrast: str = "water") -> list[Image]:
    series = of(found, station, contrast)
    return without(found, [series[len(series) // 2]])


def missing_last_slice(found: list[Image]) -> list[Image]:
    return without(found, of(found, 2, "fat")[-1:])


def uneven_gap(found: list[Image]) -> list[Image]:
    series = of(found, 4, "fat")
    tags = []
    for one in series[len(series) // 2 :]:
        x, y, z = one.dataset.ImagePositionPatient
        tags.append(altered(one, ImagePositionPatient=[x, y, float(z) + 1.7]))
    return without(found, series[len(series) // 2 :]) + tags


def mixed_series(found: list[Image]) -> list[Image]:
    """The fat of station 2 under the UID of its water."""
    fat, water = of(found, 2, "fat"), of(found, 2, "water")
    uid = water[0].dataset.SeriesInstanceUID
    return without(found, fat) + [altered(one, SeriesInstanceUID=uid) for one in fat]


def mixed_stations(found: list[Image]) -> list[Image]:
    """The water of two stations under one UID."""
    one, two = of(found, 2, "water"), of(found, 3, "water")
    uid = one[0].dataset.SeriesInstanceUID
    return without(found, two) + [altered(image, SeriesInstanceUID=uid) for image in two]


def missing_contrast(found: list[Image]) -> list[Image]:
    return without(found, of(found, 5, "opposed_phase"))


def missing_station(found: list[Image], station: int = 6) -> list[Image]:
    return [image for image in found if image.station != station]


def swapped(found: list[Image], station: int = 3, half: bool = False) -> list[Image]:
    """Fat and water of a station exchanged, or on the subject's left only."""
    fat, water = of(found, station, "fat"), of(found, station, "water")
    where = slice(fat[0].pixels.shape[1] // 2, None) if half else slice(None)  # columns go left
    changed = []
    for one, other in zip(fat, water):
        a, b = one.pixels.copy(), other.pixels.copy()
        a[:, where], b[:, where] = other.pixels[:, where], one.pixels[:, where]
        changed += [altered(one, a), altered(other, b)]
    return without(found, [*fat, *water]) + changed
