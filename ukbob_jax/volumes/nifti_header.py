"""A NIfTI header as checked facts: what the voxels are, where they start, and where they lie in the world."""

import logging
import pathlib
import struct
import warnings
from typing import NamedTuple, cast

import numpy as np
from nibabel import nifti1, nifti2
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError

from ukbob_jax import advice
from ukbob_jax.errors import FileError, GeometryError, ValuesError
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes.geometry import HeaderGeometry, read_geometry

LONGEST = 540  # bytes; a NIfTI-2 header, NIfTI-1 has 348
_CLASSES = {348: nifti1.Nifti1Header, 540: nifti2.Nifti2Header}
_MAGIC = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}
_COLOUR, _COMPLEX = {128, 2304}, {32, 1792, 2048}  # NIfTI datatype codes
_UNIT_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # metre, millimetre, micrometre; unknown is taken as mm
_SILENT = logging.Logger(
    "nibabel, silenced"
)  # belongs to no hierarchy: what nibabel mends, we check ourselves
_SILENT.addHandler(logging.NullHandler())


class Header(NamedTuple):
    """What the reader needs to know.

    Attributes:
        shape: 3 or more voxels per axis, trailing ones beyond the third dropped.
        dtype: as stored, with byte order.
        offset: byte of the first voxel.
        slope, inter: value = stored * slope + inter; (1, 0) where not scaled.
        affine: (4, 4) float64, mm.
        codes: (sform_code, qform_code).
        geometry: the fields that say so, as stored.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    affine: np.ndarray
    codes: tuple[int, int]
    geometry: HeaderGeometry | None = None

    @property
    def end(self) -> int:
        """One past the last byte of voxel data."""
        return self.offset + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@np.errstate(all="ignore")  # NaN and overflow in a broken header are found below, by their results
def parse(path: pathlib.Path, block: bytes, assume_ras: bool) -> Header:
    """The header in the first bytes of a file.

    Args:
        path: named in errors.
        block: at least `LONGEST` bytes, or the whole file.
        assume_ras: where the file does not say where it lies, take its axes as right, anterior, superior.
    Raises:
        FileError: not NIfTI, or a field that makes no sense.
        GeometryError: dimensions or affine that cannot be used.
        ValuesError: complex or colour voxels.
    """
    raw = _raw(path, block)
    shape = _shape(path, [int(n) for n in raw["dim"]])
    dtype = _dtype(path, int(raw["datatype"]), raw.endianness)
    offset = float(raw["vox_offset"])
    if not (raw.sizeof_hdr + 4 <= offset < 2**40 and offset == int(offset)):
        raise FileError(
            f"{path}: voxel data start at byte {offset:g}, which cannot be (vox_offset); not a sound file."
        )
    try:
        slope, inter = raw.get_slope_inter()
    except HeaderDataError as error:
        raise ValuesError(f"{path}: scl_inter is {float(raw['scl_inter'])}; repair the header.") from error
    slope, inter = (1.0, 0.0) if slope is None else (slope, 0.0 if inter is None else inter)
    affine, codes = _affine(path, raw, shape, assume_ras)
    placed = read_geometry(raw, affine, shape)
    return Header(shape, dtype, int(offset), slope, inter, affine, codes, placed)


def _raw(path: pathlib.Path, block: bytes) -> nifti1.Nifti1Header:
    """The fields, unchecked, in the byte order that the header's own size tells."""
    if len(block) < 348:
        raise FileError(f"{path}: truncated: {len(block)} bytes, a NIfTI header has 348.")
    for endianness in "<>":
        (size,) = struct.unpack(f"{endianness}i", block[:4])
        if size not in _CLASSES:
            continue
        if len(block) < size:
            raise FileError(f"{path}: truncated: {len(block)} bytes, a NIfTI-2 header has 540.")
        header = _CLASSES[size](block[:size], endianness, check=False)
        magic = block[4:12] if size == 540 else block[344:348]
        if magic != _MAGIC[size]:
            raise FileError(
                f"{path}: the magic bytes are {magic!r}, expected {_MAGIC[size]!r} (NIfTI in one file). Analyze and "
                ".hdr/.img pairs need converting first."
            )
        return header
    kind = "a web page or text" if block.lstrip()[:1] in b"<{" else f"first bytes {block[:4].hex()}"
    raise FileError(f"{path}: not a NIfTI file ({kind}); expected .nii or .nii.gz.")


def _shape(path: pathlib.Path, dim: list[int]) -> tuple[int, ...]:
    rank, shape = dim[0], dim[1 : 1 + max(dim[0], 0)]
    if not 1 <= rank <= 7 or min(shape) < 0:
        raise FileError(f"{path}: the header's dimensions are {dim}; not a sound NIfTI file.")
    if 0 in shape:
        raise GeometryError(f"{path}: an axis has no voxels, shape {tuple(shape)}.")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) == 5 and shape[3] == 1:  # x y z 1 c: vector images of ITK
        shape.pop(3)
    if len(shape) < 3:
        raise GeometryError(f"{path}: a {rank}-D image of shape {tuple(shape)}; expected a 3-D volume.")
    return tuple(shape)


def _dtype(path: pathlib.Path, code: int, endianness: str) -> np.dtype:
    if code in _COLOUR:
        raise ValuesError(f"{path}: colour (RGB) voxels, datatype {code}; expected one number per voxel.")
    if code in _COMPLEX:
        raise ValuesError(f"{path}: complex voxels, datatype {code}; save the magnitude instead.")
    known = code in nifti1.data_type_codes.value_set()
    dtype = cast(np.dtype, nifti1.data_type_codes.dtype[code]) if known else np.dtype("V")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileError(
            f"{path}: datatype {code} is not known; expected integers or floats of up to 64 bits."
        )
    return dtype.newbyteorder("<" if endianness == "<" else ">")


def _affine(
    path: pathlib.Path, raw: nifti1.Nifti1Header, shape: tuple[int, ...], assume_ras: bool
) -> tuple[np.ndarray, tuple[int, int]]:
    """The sform, else the qform, else (only when asked) the spacing alone; in mm."""
    codes = int(raw["sform_code"]), int(raw["qform_code"])
    pixdim = raw["pixdim"][1:4].astype(np.float64)
    if codes[0] > 0:
        affine = np.array(raw.get_sform(), np.float64)
        affines.check(affine, str(path))
        _compare_pixdim(path, affines.spacing(affine), pixdim)
        if codes[1] > 0:
            _compare_qform(path, affine, raw, shape)
    elif not (np.isfinite(pixdim) & (pixdim > 0)).all():
        raise GeometryError(
            f"{path}: spacing (pixdim) is {pixdim.tolist()}; every axis needs a positive one."
        )
    elif codes[1] > 0:
        affine = _qform(path, raw)
    elif assume_ras:
        affine = np.diag([*pixdim, 1.0])
        warnings.warn(
            f"{path}: orientation unknown (sform and qform codes 0), taken as RAS as asked.", stacklevel=4
        )
    else:
        raise GeometryError(
            f"{path}: orientation unknown (sform and qform codes are 0), so left and right cannot be told. "
            f"Set the codes{advice.fix(', or give {} if the axes are right, anterior, superior', 'assume_ras', True)}."
        )
    unit = _UNIT_MM.get(int(raw["xyzt_units"]) & 7, 1.0)
    if unit != 1.0:
        affine = np.diag([unit, unit, unit, 1.0]) @ affine
        warnings.warn(f"{path}: spacing converted to mm, {affines.spacing(affine).tolist()}.", stacklevel=4)
    affines.check(affine, str(path))
    affines.check_shear(affine, str(path))
    return affine, codes


def _qform(path: pathlib.Path, raw: nifti1.Nifti1Header) -> np.ndarray:
    """The quaternion form as a matrix."""
    fixed = raw.copy()
    fixed.check_fix(_SILENT, error_level=100)  # mends pixdim[0], the handedness flag
    try:
        affine = np.asarray(fixed.get_qform(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise GeometryError(f"{path}: the qform is no rotation ({error}); repair the header.") from error
    affines.check(affine, str(path))
    return affine


def _compare_pixdim(path: pathlib.Path, spacing: np.ndarray, pixdim: np.ndarray) -> None:
    if not np.allclose(spacing, pixdim, rtol=0.01, atol=0):
        warnings.warn(
            f"{path}: pixdim says {pixdim.tolist()} mm, the affine {spacing.round(6).tolist()} mm; the affine is used.",
            stacklevel=5,
        )


def _compare_qform(
    path: pathlib.Path, sform: np.ndarray, raw: nifti1.Nifti1Header, shape: tuple[int, ...]
) -> None:
    """Refuse two forms that disagree on where an axis points: one of them swaps left and right."""
    try:
        qform = _qform(path, raw)
    except GeometryError as error:
        warnings.warn(f"{error} The sform is used.", stacklevel=5)
        return
    cosines = (sform[:3, :3] / affines.spacing(sform) * qform[:3, :3] / affines.spacing(qform)).sum(axis=0)
    if cosines.min() < 0.5:
        axes = ["".join(aff2axcodes(m)) for m in (sform, qform)]
        raise GeometryError(
            f"{path}: sform says {axes[0]} and qform says {axes[1]}, so left and right are ambiguous. "
            "Set the code of the wrong one to 0."
        )
    distance = affines.corner_distance_mm(sform, qform, shape)
    if distance > affines.spacing(sform).min():
        warnings.warn(
            f"{path}: sform and qform lie {distance:.3g} mm apart; the sform is used.", stacklevel=5
        )
