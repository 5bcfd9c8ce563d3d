"""Label maps as DICOM segmentations that refer to the series they were drawn on, through highdicom."""

import importlib
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import ukbob_jax
from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError, ValuesError
from ukbob_jax.volumes.dicom.library import library, quiet
from ukbob_jax.volumes.dicom.segment_codes import coded
from ukbob_jax.volumes.dicom.sources import Sources
from ukbob_jax.volumes.label_colours import colour
from ukbob_jax.volumes.resample import NEAREST
from ukbob_jax.volumes.volume import Volume

MAKER = "ukbob-jax"
_SERIES_NUMBER = 300  # beyond those that scanners count to
_MAY_BE_EMPTY = (
    "AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "ReferringPhysicianName",
    "StudyDate", "StudyID", "StudyTime",
)  # fmt: skip
_OF_ALL_FRAMES = ("PixelMeasuresSequence", "PlaneOrientationSequence")
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write(path: str | os.PathLike, labels: Volume, names: Mapping[int, str], sources: Sources) -> None:
    """Write the structures that are there as binary segments, numbered from 1 in the order of their ids.

    The object lies in the study and frame of reference of its source and carries the person's identity as the source
    does. Each frame lies on a slice of the source, also where that gantry was tilted.

    Args:
        path: of the file, in one step.
        labels: ids in `names`, on the volume that `read_series` made of the sources.
        names: id to name.
        sources: of `read_sources`.
    Raises:
        ConfigError: highdicom or pydicom is not installed.
        ValuesError: no structure is there; a DICOM segmentation has at least one.
        FileError: the source lacks what the object must repeat, or the file cannot be written.
    """
    highdicom = reader_and_writer()
    path = pathlib.Path(path)
    on_slices = labels.resample_like(sources.grid, NEAREST).array  # column row slice
    present = [int(i) for i in np.unique(on_slices) if i]
    if not present:
        raise ValuesError(f"{path}: no structure was found, and a DICOM segmentation has at least one.")
    numbers = np.zeros(present[-1] + 1, np.uint8 if len(present) < 256 else np.uint16)
    numbers[present] = np.arange(1, len(present) + 1)
    frames = np.ascontiguousarray(numbers[on_slices].transpose(2, 1, 0))  # slice row column
    first = sources.headers[0]
    if not first.get("FrameOfReferenceUID"):
        raise FileError(
            f"{path}: series {first.get('SeriesInstanceUID', '')} has no frame of reference, in which a DICOM segmentation "
            "would lie. Write .nii.gz or .seg.nrrd instead."
        )
    uid = library().uid.generate_uid
    try:
        with quiet():
            found = highdicom.seg.Segmentation(
                source_images=[_complete(header) for header in sources.headers],
                pixel_array=frames if sources.one_each else _placed(highdicom, frames, sources),
                segmentation_type="BINARY",
                segment_descriptions=[
                    _segment(highdicom, n, i, names.get(i, str(i))) for n, i in enumerate(present, 1)
                ],
                series_instance_uid=uid(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=uid(),
                instance_number=1,
                manufacturer=MAKER,
                manufacturer_model_name=MAKER,
                software_versions=ukbob_jax.__version__,
                device_serial_number="0",
                content_label="SEGMENTATION",
                series_description=f"{MAKER} segmentation",
            )
            buffer = io.BytesIO()
            found.save_as(buffer, enforce_file_format=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path}: a DICOM segmentation cannot refer to series {first.get('SeriesInstanceUID', '')}: {error}. Write "
            ".nii.gz or .seg.nrrd instead."
        ) from error
    files.write_bytes(path, buffer.getvalue())


def reader_and_writer() -> Any:
    """highdicom, which plain installations do without.

    Raises:
        ConfigError: it is not installed.
    """
    library()
    try:
        return importlib.import_module("highdicom")
    except ImportError as error:
        raise ConfigError(
            "Writing DICOM segmentations needs highdicom, which is not installed: pip install 'ukbob-jax[dicom]'."
        ) from error


def _complete(header: Any) -> Any:
    """A copy of a source's header with what highdicom reads of every source, also where the source leaves it out.

    That is attributes which may be empty but not absent (type 2), and functional groups that are said frame by frame.
    """
    found = library().dataset.Dataset()
    found.update(header)
    for name in (name for name in _MAY_BE_EMPTY if name not in found):
        setattr(found, name, "")
    if "PerFrameFunctionalGroupsSequence" in found:
        shared = library().dataset.Dataset()
        for item in found.get("SharedFunctionalGroupsSequence") or ():
            shared.update(item)
        for name in (name for name in _OF_ALL_FRAMES if name not in shared):
            if value := found.PerFrameFunctionalGroupsSequence[0].get(name):
                setattr(shared, name, value)
        found.SharedFunctionalGroupsSequence = [shared]
    return found


def _placed(highdicom: Any, frames: np.ndarray, sources: Sources) -> Any:
    """The frames of an object that holds all its slices, with their own geometry."""
    to_lps = _LPS @ sources.grid.affine  # column row slice 1
    affine = to_lps[:, [2, 1, 0, 3]]  # slice row column 1
    reference = sources.headers[0].get("FrameOfReferenceUID")
    return highdicom.Volume(frames, affine, "PATIENT", frame_of_reference_uid=reference)


def _segment(highdicom: Any, number: int, label: int, name: str) -> Any:
    """The description of one segment: name, codes, colour and who drew it."""
    concept, codes = highdicom.sr.CodedConcept, coded(label, name)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=MAKER,
        family=concept("123110", "DCM", "Artificial Intelligence"),
        version=ukbob_jax.__version__,
        source=MAKER,
    )
    found = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=concept(*codes.category),
        segmented_property_type=concept(*codes.kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=library().uid.generate_uid(),
        tracking_id=name[:64],
        display_color=highdicom.color.CIELabColor.from_rgb(*colour(label, name)),
    )
    if codes.side:
        [kind] = found.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(*codes.side)]
    return found
