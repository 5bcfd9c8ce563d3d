"""The pixels of a DICOM object, whatever way they are compressed; decoders are pydicom's plugins."""

from typing import Any

import numpy as np

from ukbob_jax.errors import FileError
from ukbob_jax.volumes.dicom.library import library

INSTALL = "pip install 'ukbob-jax[dicom-codecs]'"


def decode(found: Any, where: str) -> np.ndarray:
    """Stored values, rows columns, or frames rows columns.

    Args:
        found: the object, with its pixels and file meta information.
        where: names it in messages.
    Raises:
        FileError: nothing here decodes its transfer syntax; the message names it and what to install.
    """
    _check_decoder(found.file_meta.get("TransferSyntaxUID"), where)
    return found.pixel_array


def _check_decoder(syntax: Any, where: str) -> None:
    """Refuse a compressed object before its pixels are looked at, if its decoder is not installed."""
    if syntax is None or not syntax.is_compressed or syntax.is_deflated:
        return
    library()
    from pydicom.pixels.decoders.base import get_decoder

    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        raise FileError(
            f"{where}: pixels in {syntax.name}, which is not read. Export it again without compression."
        ) from None
    if not known:
        raise FileError(
            f"{where}: compressed as {syntax.name}, for which no decoder is installed: {INSTALL}, or export it again "
            "without compression."
        )
