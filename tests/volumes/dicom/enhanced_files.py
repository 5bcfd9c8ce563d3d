"""Enhanced multi-frame objects of small random volumes."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedMRImageStorage,
    generate_uid,
)

from ukbob_jax.volumes.volume import Volume

MR, CT, PET = EnhancedMRImageStorage, EnhancedCTImageStorage, EnhancedPETImageStorage
LEGACY_MR = LegacyConvertedEnhancedMRImageStorage
TO_LPS = np.diag([-1.0, -1.0, 1.0])

Groups = Mapping[str, Mapping[str, Any]]  # functional group: its attributes


class Frame(NamedTuple):
    """One frame before it is written."""

    pixels: np.ndarray  # rows columns, uint16
    groups: dict[str, dict[str, Any]]


def frames(truth: Volume, **groups: Mapping[str, Any]) -> list[Frame]:
    """The slices of `truth` with their positions, and what else all of them say."""
    found = []
    for z in range(truth.shape[2]):
        corner = TO_LPS @ (truth.affine @ [0, 0, z, 1])[:3]
        place = {"PlanePositionSequence": {"ImagePositionPatient": [f"{v:.10g}" for v in corner]}}
        content = {"StackID": "1", "InStackPositionNumber": z + 1, **groups.get("FrameContentSequence", {})}
        own = {name: dict(values) for name, values in groups.items()}
        found.append(
            Frame(truth.array[:, :, z].T.astype(np.uint16), own | place | {"FrameContentSequence": content})
        )
    return found


def shared(truth: Volume, **groups: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Orientation and spacing of `truth`."""
    along = TO_LPS @ (truth.affine[:3, :3] / truth.spacing_mm)
    x, y, z = truth.spacing_mm
    return {
        "PlaneOrientationSequence": {
            "ImageOrientationPatient": [f"{v:.10g}" for v in (*along[:, 0], *along[:, 1])]
        },
        "PixelMeasuresSequence": {"PixelSpacing": [f"{y:.9g}", f"{x:.9g}"], "SliceThickness": f"{z:.9g}"},
        **groups,
    }


def encode(
    found: Sequence[Frame], common: Groups, kind: str = MR, dimensions: Sequence[str] = (), **tags: Any
) -> bytes:
    """One file.

    Args:
        common: shared functional groups.
        kind: SOP class.
        dimensions: keywords that DimensionIndexValues point to.
        tags: of the object itself; `NumberOfFrames` may lie.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, kind
    one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = kind, generate_uid()
    meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.SeriesInstanceUID, one.SeriesDescription = generate_uid(), "several frames"
    one.Modality, one.ImageType = "MR", ["ORIGINAL", "PRIMARY", "T1", "MIXED"]
    one.Rows, one.Columns = found[0].pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.NumberOfFrames = len(found)
    one.SharedFunctionalGroupsSequence = Items([_item(common)])
    one.PerFrameFunctionalGroupsSequence = Items([_item(frame.groups) for frame in found])
    one.DimensionIndexSequence = Items([_pointer(keyword) for keyword in dimensions])
    one.PixelData = np.stack([frame.pixels for frame in found]).astype("<u2").tobytes()
    for tag, value in tags.items():
        setattr(one, tag, value)
    buffer = io.BytesIO()
    one.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(folder: pathlib.Path, *data: bytes) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(data):
        (folder / f"IM{number:04d}").write_bytes(one)
    return folder


def _item(groups: Groups) -> Dataset:
    item = Dataset()
    for name, values in groups.items():
        inner = Dataset()
        for tag, value in values.items():
            setattr(inner, tag, value)
        setattr(item, name, Items([inner]))
    return item


def _pointer(keyword: str) -> Dataset:
    item = Dataset()
    item.DimensionIndexPointer = Tag(keyword)
    return item
