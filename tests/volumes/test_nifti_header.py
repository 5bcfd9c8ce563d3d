"""Headers made by nibabel and altered field by field; whole damaged files are in test_malformed.py."""

import pathlib

import nibabel
import numpy as np
import pytest
from nibabel import nifti1, nifti2

from ukbob_jax.errors import FileError, GeometryError, ValuesError
from ukbob_jax.volumes import nifti_header

PATH = pathlib.Path("scan.nii")
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -40], [0, 0, 3, 7], [0, 0, 0, 1]])


def block(kind=nifti1.Nifti1Image, endianness="<", shape=(4, 3, 2), **fields) -> bytes:
    image = kind(np.zeros(shape, np.int16), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    header = image.header.as_byteswapped(endianness)
    header["vox_offset"] = header.sizeof_hdr + 4
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nifti2.Nifti2Image])
@pytest.mark.parametrize("endianness", "<>")
def test_both_formats_in_both_byte_orders_say_the_same(kind, endianness):
    found = nifti_header.parse(PATH, block(kind, endianness, scl_slope=2.0, scl_inter=-1.0), False)
    assert found.shape == (4, 3, 2) and found.dtype == np.dtype(f"{endianness}i2")
    assert (found.slope, found.inter, found.codes) == (2.0, -1.0, (1, 1))
    np.testing.assert_array_equal(found.affine, AFFINE)
    assert found.offset == (352 if kind is nibabel.Nifti1Image else 544)
    assert found.end == found.offset + 4 * 3 * 2 * 2


def test_trailing_axes_of_one_voxel_are_dropped_and_no_slope_is_one():
    found = nifti_header.parse(PATH, block(shape=(4, 3, 2, 5, 1, 1), scl_slope=0.0), False)
    assert found.shape == (4, 3, 2, 5) and (found.slope, found.inter) == (1.0, 0.0)
    assert nifti_header.parse(PATH, block(shape=(4, 3, 1, 1)), False).shape == (4, 3, 1)


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"dim": (2, 4, 3, 1, 1, 1, 1, 1)}, GeometryError, "a 2-D image"),
        ({"dim": (3, 4, 0, 2, 1, 1, 1, 1)}, GeometryError, "an axis has no voxels"),
        ({"dim": (9, 4, 3, 2, 1, 1, 1, 1)}, FileError, "the header's dimensions"),
        ({"datatype": 128}, ValuesError, "colour"),
        ({"datatype": 32}, ValuesError, "complex"),
        ({"datatype": 1536}, FileError, "datatype 1536 is not known"),
        ({"vox_offset": 100}, FileError, "start at byte 100"),
        (
            {"vox_offset": 1000000.5},
            FileError,
            r"start at byte 1000000\.5",
        ),  # told in full: rounded it would be whole
        ({"sform_code": 0, "qform_code": 0}, GeometryError, "orientation unknown"),
        ({"sform_code": 0, "pixdim": (1, 2, 0, 3, 0, 0, 0, 0)}, GeometryError, "every axis needs a positive"),
        ({"srow_x": (2.0, 0, 0, -30)}, GeometryError, "left and right are ambiguous"),
    ],
)
def test_fields_that_cannot_be_are_refused_with_the_file(fields, error, message):
    with pytest.raises(error, match=rf"^scan\.nii: .*{message}"):
        nifti_header.parse(PATH, block(**fields), False)


def test_bytes_of_something_else_are_refused():
    whole = block()
    with pytest.raises(FileError, match="truncated: 347 bytes"):
        nifti_header.parse(PATH, whole[:347], False)
    with pytest.raises(FileError, match="a web page or text"):
        nifti_header.parse(PATH, b" <html>" + whole[7:], False)
    with pytest.raises(FileError, match=r"magic bytes are b'ni1"):
        nifti_header.parse(PATH, whole[:344] + b"ni1\0" + bytes(4), False)


def test_unknown_orientation_is_taken_as_ras_only_when_asked():
    with pytest.warns(UserWarning, match="taken as RAS as asked"):
        found = nifti_header.parse(PATH, block(sform_code=0, qform_code=0), True)
    np.testing.assert_array_equal(found.affine, np.diag([2.0, 1.5, 3.0, 1.0]))
