"""pydicom, an extra: imported where it is needed, and kept quiet."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ukbob_jax.errors import ConfigError

_MAGIC = slice(128, 132)
_GROUPS = (b"\2\0", b"\x08\0", b"\0\x08")  # how a data set without preamble begins: group 0002 or 0008


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


def is_dicom(data: bytes) -> bool:
    """Whether the bytes of a file are DICOM: with the preamble of part 10, or a data set that names its SOP class."""
    if data[_MAGIC] == b"DICM":
        return True
    if data[:2] not in _GROUPS:
        return False
    try:
        with quiet():
            return bool(parse(data, ("SOPClassUID",), pixels=False).get("SOPClassUID"))
    except Exception:  # pydicom raises nearly everything on what is no DICOM
        return False


def parse(data: bytes, tags: Sequence[Any], *, pixels: bool = True) -> Any:
    """The data set in the bytes of a DICOM file.

    Files without the preamble have no meta information either: class and transfer syntax are then those of the data set.

    Args:
        data: the file.
        tags: the only ones to read.
        pixels: read on to the pixels and what follows them.
    """
    pydicom = library()
    wanted = list(dict.fromkeys([*tags, "SOPClassUID"]))
    found = pydicom.dcmread(
        io.BytesIO(data), specific_tags=wanted, stop_before_pixels=not pixels, force=data[_MAGIC] != b"DICM"
    )
    if "TransferSyntaxUID" not in found.file_meta:
        implicit, little = found.original_encoding
        plain = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        found.file_meta.TransferSyntaxUID = plain if little else pydicom.uid.ExplicitVRBigEndian
    if "MediaStorageSOPClassUID" not in found.file_meta and found.get("SOPClassUID"):
        found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep remarks of libraries off the terminal: they repeat what the header says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
