"""Siemens mosaics of a small random volume."""

import struct

import numpy as np
from pydicom.uid import generate_uid

from tests.volumes import ukb_archive
from tests.volumes.dicom.series_files import images
from ukbob_jax.volumes.volume import Volume

COUNT, CSA = (0x0019, "SIEMENS MR HEADER", 0x0A, "US"), (0x0029, "SIEMENS CSA HEADER", 0x10, "OB")


def csa_header(**tags) -> bytes:
    """A CSA header of the second kind ("SV10") with numbers as text, as the scanner writes them."""
    data = b"SV10\4\3\2\1" + struct.pack("<2I", len(tags), 77)
    for name, values in tags.items():
        kind = b"IS" if isinstance(values[0], int) else b"FD"
        data += struct.pack("<64si4s3i", name.encode(), len(values), kind, 0, len(values), 77)
        for value in values:
            text = f"{value}".encode() + b"\0"
            data += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + bytes(-len(text) % 4)
    return data


def private(one, place, value) -> None:
    group, creator, element, kind = place
    one.private_block(group, creator, create=True).add_new(element, kind, value)


def mosaic(
    truth: Volume, number: int = 1, count=True, csa=None, backwards=False, **tags
) -> ukb_archive.Image:
    """One file with all slices of `truth` as tiles.

    Args:
        count: whether (0019,100A) says how many slices there are; "bytes": as two bytes.
        csa: the bytes of the CSA header, None without.
        backwards: stack the tiles against the cross product of rows and columns.
    """
    slices = images(truth, InstanceNumber=number, AcquisitionNumber=number, **tags)
    slices = slices[::-1] if backwards else slices
    rows, columns = slices[0].pixels.shape
    across = int(np.ceil(np.sqrt(len(slices))))
    large = np.zeros((across * rows, across * columns), np.uint16)
    for tile, one in enumerate(slices):
        y, x = divmod(tile, across)
        large[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns] = one.pixels
    header = slices[0].dataset
    corner, along = (
        np.array(value, float) for value in (header.ImagePositionPatient, header.ImageOrientationPatient)
    )
    dy, dx = map(float, header.PixelSpacing)
    corner -= along[:3] * dx * (across - 1) * columns / 2 + along[3:] * dy * (across - 1) * rows / 2
    header.ImagePositionPatient = [f"{value:.12g}" for value in corner]
    header.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    header.SpacingBetweenSlices, header.SOPInstanceUID = f"{truth.spacing_mm[2]:.9g}", generate_uid()
    del header[0x00290010], header[0x00291010]
    if count:
        private(header, COUNT, len(slices))
    if count == "bytes":  # as a program writes that does not know the tag
        del header[0x0019100A]
        private(header, (*COUNT[:3], "OB"), len(slices).to_bytes(2, "little"))
    if csa is not None:
        private(header, CSA, csa)
    for tag, value in tags.items():
        setattr(header, tag, value)
    return slices[0]._replace(pixels=large)
