"""Enhanced multi-frame objects (MR, CT, PET, and classic ones converted to them) as one header per frame.

What describes a frame lies in functional groups, per frame or shared by all; a frame's own come first. It is given the
names that the same facts have in files of one slice, so that both are read and told apart alike.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ukbob_jax.errors import FileError
from ukbob_jax.volumes.dicom.library import library

PER_FRAME, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
TAGS = (PER_FRAME, SHARED, "DimensionIndexSequence")

_CONVERTED = {
    name: name
    for name in (
        "AcquisitionNumber",
        "DiffusionBValue",
        "EchoTime",
        "FlipAngle",
        "ImageType",
        "InstanceNumber",
        "RepetitionTime",
        "TemporalPositionIdentifier",
        "TriggerTime",
    )
}
_FRAME_TYPE = {"FrameType": "ImageType", "ComplexImageComponent": "ComplexImageComponent"}
_GROUPS = {  # functional group: its attribute and the one of a file with a single slice; later ones come first
    "UnassignedSharedConvertedAttributesSequence": _CONVERTED,
    "UnassignedPerFrameConvertedAttributesSequence": _CONVERTED,
    "FrameContentSequence": {
        "DimensionIndexValues": "DimensionIndexValues",
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "StackID": "StackID",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
    },
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing"},
    "PixelValueTransformationSequence": {
        "RescaleIntercept": "RescaleIntercept",
        "RescaleSlope": "RescaleSlope",
    },
    "MRImageFrameTypeSequence": _FRAME_TYPE,
    "CTImageFrameTypeSequence": _FRAME_TYPE,
    "PETFrameTypeSequence": _FRAME_TYPE,
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    "MRTimingAndRelatedParametersSequence": {"FlipAngle": "FlipAngle", "RepetitionTime": "RepetitionTime"},
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
}
# Told by the geometry, and told by a tag of their own.
_PLACES = ("InStackPositionNumber", "ImagePositionPatient", "StackID", "SliceLocation")
_TOLD = ("TemporalPositionIndex", "EffectiveEchoTime", "DiffusionBValue")


def is_enhanced(found: Any) -> bool:
    """Whether the object describes its frames one by one."""
    return bool(found.get(PER_FRAME))


def unfold(found: Any, where: str) -> list[Any]:
    """A header for each frame, in the order of the file.

    Raises:
        FileError: there are more or fewer descriptions than frames.
    """
    described, frames = found[PER_FRAME].value, int(found.get("NumberOfFrames") or 1)
    if len(described) != frames:
        raise FileError(
            f"{where}: {frames} frames, but functional groups of {len(described)}: damaged. Fetch it again."
        )
    base = library().dataset.Dataset()
    base.update({element.tag: element for element in _own(found)})
    for item in found.get(SHARED) or ():
        _take(item, base)
    indices = _indices(found.get("DimensionIndexSequence") or ())
    headers = []
    for item in described:
        one = library().dataset.Dataset()
        one.update(base)
        _take(item, one)
        values = one.get("DimensionIndexValues")
        values = [values] if isinstance(values, int) else list(values or ())
        one.add_new("DimensionIndexValues", "UL", [values[i] for i in indices if i < len(values)])
        headers.append(one)
    return headers


def _own(found: Any) -> Iterator[Any]:
    """Elements of the object itself without its pixels and sequences."""
    for element in found:
        if element.VR != "SQ" and element.keyword != "PixelData":
            yield element


def _take(item: Any, header: Any) -> None:
    """Write what the functional groups in `item` say into a header, whose elements may be shared with others."""
    kind = library().datadict.dictionary_VR
    for group, names in _GROUPS.items():
        for one in list(item.get(group) or ())[:1]:
            for name, classic in names.items():
                if one.get(name) is not None:
                    header.add_new(classic, kind(classic), one[name].value)


def _indices(dimensions: Sequence[Any]) -> list[int]:
    """Which of a frame's dimension indices tell images apart: those of neither a place nor a tag that is read anyway."""
    keyword = library().datadict.keyword_for_tag
    told = {*_PLACES, *_TOLD}
    return [
        number
        for number, dimension in enumerate(dimensions)
        if (pointer := dimension.get("DimensionIndexPointer")) is None or keyword(pointer) not in told
    ]
