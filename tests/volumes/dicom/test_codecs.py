"""Compressed pixels: decoded where a decoder is installed, else named with what to install."""

import io
import pathlib
import types

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import decoders, get_decoder, get_encoder
from pydicom.uid import (
    MPEG2MPML,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.volumes import ukb_archive
from tests.volumes.dicom import enhanced_files
from tests.volumes.dicom.mosaic_files import mosaic
from tests.volumes.dicom.series_files import images, volume
from ukbob_jax.errors import FileError
from ukbob_jax.volumes import dicom
from ukbob_jax.volumes.dicom.slices import read_slices

AXIAL = volume(((-1, 0, 0), (0, -1, 0), (0, 0, 1)))
SOURCES = {
    "one file per slice": lambda: [ukb_archive.encode(one) for one in images(AXIAL)],
    "mosaic": lambda: [ukb_archive.encode(mosaic(AXIAL))],
    "enhanced": lambda: [
        enhanced_files.encode(enhanced_files.frames(AXIAL), enhanced_files.shared(AXIAL), BitsStored=16, HighBit=15)
    ],
}  # fmt: skip


def compressed(data, syntax) -> bytes:
    """The file in another transfer syntax; JPEG 2000 by Pillow, the others by pydicom's plugins."""
    found = pydicom.dcmread(io.BytesIO(data))
    if syntax == JPEG2000Lossless:
        found.BitsStored, found.HighBit = 16, 15
        frames = found.pixel_array.reshape(-1, found.Rows, found.Columns)
        found.PixelData = encapsulate([_jpeg2000(frame) for frame in frames])
        found["PixelData"].is_undefined_length = True
        found.file_meta.TransferSyntaxUID = syntax
    else:
        found.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    found.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _jpeg2000(frame) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame.astype(np.uint16)).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    return buffer.getvalue()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=["RLE", "JPEG 2000", "JPEG-LS"]
)
def test_compressed_pixels_are_those_of_the_plain_file(source, syntax, tmp_path):
    encodes = syntax == JPEG2000Lossless or get_encoder(syntax).is_available
    if not (encodes and get_decoder(syntax).is_available):
        pytest.skip(f"no plugin for {syntax.name}")
    enhanced_files.write(tmp_path, *(compressed(data, syntax) for data in SOURCES[source]()))
    found = dicom.read_series(tmp_path)
    np.testing.assert_array_equal(found.array, AXIAL.to_ras().array)
    np.testing.assert_allclose(found.affine, AXIAL.to_ras().affine, atol=1e-6)


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit"])
def test_files_of_other_writers_hold_the_same_pixels(name):
    plain, other = (get_testdata_file(f"MR_small{ending}.dcm", download=False) for ending in ("", f"_{name}"))
    syntax = pydicom.dcmread(other, stop_before_pixels=True).file_meta.TransferSyntaxUID
    if not get_decoder(syntax).is_available:
        pytest.skip(f"no plugin for {syntax.name}")
    [first], [second] = (read_slices(pathlib.Path(path).read_bytes(), "x") for path in (plain, other))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert len(np.unique(first.pixels)) > 100


def relabelled(syntax) -> bytes:
    """A file that says it is compressed, with pixels that nothing decodes."""
    found = pydicom.dcmread(io.BytesIO(ukb_archive.encode(images(AXIAL)[0])))
    found.file_meta.TransferSyntaxUID = syntax
    found.PixelData = encapsulate([b"\xff\xd8no image\xff\xd9"])
    found["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    found.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLosslessSV1, JPEG2000Lossless, JPEGExtended12Bit])
def test_a_missing_decoder_is_one_line_with_the_remedy(syntax, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders.base, "get_decoder", lambda uid: types.SimpleNamespace(is_available=False))
    enhanced_files.write(tmp_path, relabelled(syntax))
    with pytest.raises(FileError) as caught:
        dicom.read_series(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'IM0000'}: compressed as {syntax.name}, for which no decoder is installed: "
        "pip install 'ukbob-jax[dicom-codecs]', or export it again without compression."
    )


def test_a_syntax_that_is_no_image_compression_is_refused(tmp_path):
    enhanced_files.write(tmp_path, relabelled(MPEG2MPML))
    with pytest.raises(FileError, match="pixels in MPEG2 Main Profile / Main Level, which is not read"):
        dicom.read_series(tmp_path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["RLE", "JPEG 2000"])
def test_damaged_pixels_are_named(syntax, tmp_path):
    if not get_decoder(syntax).is_available:
        pytest.skip(f"no plugin for {syntax.name}")
    enhanced_files.write(tmp_path, relabelled(syntax))
    with pytest.raises(FileError, match=r"IM0000: damaged, or cut off \(") as caught:
        dicom.read_series(tmp_path)
    assert "\n" not in str(caught.value)
