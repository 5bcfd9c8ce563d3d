"""NIfTI files to volumes and back. Everything a file claims is checked here, once."""

import gzip
import io
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Literal

import nibabel as nib
import numpy as np

from ukbob_jax import advice, files
from ukbob_jax.errors import ConfigError, FileError, GeometryError, MismatchError, ValuesError
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes import array_checks, formats, gzip_bytes, label_names, nifti_header, voxels
from ukbob_jax.volumes.formats import placing, rtstruct
from ukbob_jax.volumes.volume import LONGEST, Volume

SUFFIXES = (".nii.gz", ".nii")
SAME_SPACE = 0.01  # voxels; corners of two grids may differ by rounding in their headers, not by more
_BEGINNING = 2**16  # bytes that hold most headers with their extensions
_SLACK = 2**20  # bytes that may follow the voxels
_IMAGE_LEVEL, _LABEL_LEVEL = 1, 6  # zlib: effort halves a label map, and gains 3 % on noise


def read_volume(
    path: str | os.PathLike,
    *,
    kind: Literal["image", "label"] = "image",
    num_classes: int | None = None,
    channels: bool = False,
    nan: Literal["refuse", "zero"] = "refuse",
    assume_ras: bool = False,
) -> Volume:
    """A file as it is stored, with its checksum, geometry and values checked.

    Args:
        path: `.nii`, `.nii.gz`, `.mgz`, or, with the extra `formats`, `.nrrd`, `.seg.nrrd`, `.nhdr`, `.mha`, `.mhd`, or
            a DICOM segmentation (labels; on the grid that its own frames span, see `read_pair`).
        kind: "image" keeps unscaled integers and makes the rest float32; "label" gives uint8 (or uint16) ids.
        num_classes: label ids are 0 to num_classes - 1, or 255 to ignore; None takes any id up to 65535.
        channels: take a 4-D file as x y z c (a 3-D one gets one channel); otherwise 4-D is refused.
        nan: "zero" sets non-finite image voxels to 0 with a warning instead of refusing the file.
        assume_ras: accept a file that does not say how it is oriented, with a warning.
    Raises:
        FileError: missing, truncated, corrupt, or another format.
        GeometryError: dimensions, spacing or affine cannot be used.
        ValuesError: voxel values cannot be used for this purpose.
    """
    if kind not in ("image", "label") or nan not in ("refuse", "zero"):
        raise ConfigError(
            f'kind={kind!r}, nan={nan!r}: kind is "image" or "label", nan is "refuse" or "zero".'
        )
    if _is_other(path := pathlib.Path(path)):
        found = _other_format(path, kind, assume_ras)
        _check_rank(path, found.array.shape, channels)
        array, affine, codes, geometry = found.array, found.affine, (1, 1), None
    else:
        stored = gzip_bytes.read(_checked_name(path))
        header = nifti_header.parse(path, gzip_bytes.head(path, stored, nifti_header.LONGEST), assume_ras)
        _check_rank(path, header.shape, channels)
        array = _voxels(path, header, stored)
        affine, codes, geometry = header.affine, header.codes, header.geometry
    name = str(path)
    array = voxels.label(name, array, num_classes) if kind == "label" else voxels.image(name, array, nan)
    if channels and array.ndim == 3:
        array = array[..., None]
    return Volume(array, affine, codes, geometry)


def read_pair(
    image: str | os.PathLike, label: str | os.PathLike, *, num_classes: int | None = None
) -> tuple[Volume, Volume]:
    """An image and its label map, both in RAS, after checking that they cover the same points in space.

    The two may be stored in different orientations. A segmentation that spans a part of the image, as DICOM SEG and
    `.seg.nrrd` do, is filled with background; the contours of an RTSTRUCT become ids from 1.

    Args:
        image: a file, or a folder with one DICOM series.
        label: a file.
        num_classes: as `read_volume`.
    Raises:
        MismatchError: shape, spacing or position differ after reorientation.
        FileError, GeometryError, ValuesError: as `read_volume`.
    """
    scan = _open(pathlib.Path(image)).to_ras()
    return scan, read_label_of(scan, label, str(image), num_classes=num_classes)


def read_label_of(
    scan: Volume,
    label: str | os.PathLike,
    name: str,
    *,
    num_classes: int | None = None,
    assume_ras: bool = False,
) -> Volume:
    """The label map of a scan, in RAS and on its grid; as in `read_pair`, segmentations of a part of it are filled.

    Args:
        scan: in RAS.
        label: a file.
        name: of the scan, for messages.
        num_classes, assume_ras: as `read_volume`.
    Raises:
        MismatchError: shape, spacing or position differ after reorientation.
        FileError, GeometryError, ValuesError: as `read_volume`.
    """
    path = pathlib.Path(label)
    if path.is_file() and not path.name.lower().endswith(SUFFIXES) and rtstruct.is_rtstruct(path):
        return rtstruct.read_labels(path, scan)[0]
    labels = read_volume(path, kind="label", num_classes=num_classes, assume_ras=assume_ras).to_ras()
    if _is_other(path):
        labels = placing.on_grid(labels, scan, str(label), name)
    check_same_space(scan, labels, name, str(label))
    return labels


def check_same_space(a: Volume, b: Volume, name_a: str, name_b: str) -> None:
    """Refuse two volumes (both in RAS) whose voxels do not lie at the same points.

    Raises:
        MismatchError: with both values and the tolerance.
    """
    if a.shape != b.shape:
        raise MismatchError(
            f"{name_b}: shape {b.shape} in RAS, but {name_a} has {a.shape}; resample one to the other."
        )
    spacings = [[round(s, 9) for s in volume.spacing_mm] for volume in (a, b)]
    if not np.allclose(a.spacing_mm, b.spacing_mm, rtol=SAME_SPACE / max(a.shape), atol=0):
        raise MismatchError(f"{name_b}: spacing {spacings[1]} mm, but {name_a} has {spacings[0]} mm.")
    distance, limit = affines.corner_distance_mm(a.affine, b.affine, a.shape), SAME_SPACE * min(a.spacing_mm)
    if distance > limit:
        origins = [volume.affine[:3, 3].round(3).tolist() for volume in (a, b)]
        raise MismatchError(
            f"{name_b}: lies {distance:.6g} mm away from {name_a} at a corner (tolerance {limit:.6g} mm); "
            f"origins {origins[1]} and {origins[0]} mm. Check that they belong to the same scan."
        )


def write_volume(path: str | os.PathLike, volume: Volume, names: Mapping[int, str] | None = None) -> None:
    """Write a file in one step: a crash leaves the old file or the new one.

    Floats are stored as float32, bool as uint8, 64-bit integers in the smallest type that holds them; the header
    repeats the volume's affine and codes, or, on the grid of the file it came from, that file's own sform, qform,
    codes, spacing and unit.

    Args:
        path: ends in .nii or .nii.gz; or .nrrd, .seg.nrrd, .mha (extra `formats`) or .mgz, which keep the affine alone.
        volume: x y z or x y z c.
        names: label id to name, stored in the header extension that viewers read, or as segments of `.seg.nrrd`.
    Raises:
        FileError: another file name ending, a full disk or a folder that cannot be written.
        ValuesError: voxels that NIfTI readers do not take (complex, objects, integers beyond 32 bits).
        GeometryError: more than 32767 voxels along an axis.
    """
    path = pathlib.Path(path)
    array_checks.check_finite(str(path), volume.array)
    if formats.ending(path):
        formats.write(path, _storable(path, volume.array), volume.affine, names or {})
        return
    path = _checked_name(path)
    if max(volume.array.shape) > LONGEST:
        raise GeometryError(
            f"{path}: shape {volume.array.shape} does not fit NIfTI-1, at most {LONGEST} voxels an axis."
        )
    image = nib.Nifti1Image(_storable(path, volume.array), None)
    _place(image.header, volume)
    if names:
        image.header.extensions.append(label_names.extension(names))
    data = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        level = _LABEL_LEVEL if image.get_data_dtype() == np.uint8 else _IMAGE_LEVEL
        data = gzip.compress(data, level, mtime=0)
    files.write_bytes(path, data)


def read_header(path: pathlib.Path) -> nifti_header.Header:
    """What a NIfTI file says of itself, for those who only look: where it does not say how it lies, in RAS.

    No voxel is read, and what `read_volume` warns of is not told.

    Raises:
        FileError, GeometryError, ValuesError: as `read_volume`.
    """
    stored = gzip_bytes.read(path, _BEGINNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return nifti_header.parse(path, gzip_bytes.head(path, stored, nifti_header.LONGEST), assume_ras=True)


def read_label_names(path: str | os.PathLike) -> dict[int, str]:
    """Label id to name from the file's header: the extension that `write_volume` and viewers write, or its segments.

    No voxel is read; empty where the file names nothing.

    Raises:
        FileError: missing, truncated, corrupt, or another format.
    """
    if _is_other(path := pathlib.Path(path)):
        return formats.names(path)
    header = read_header(path := _checked_name(path))
    start = gzip_bytes.head(path, gzip_bytes.read(path, _BEGINNING), header.offset)
    if len(start) < header.offset:
        start = gzip_bytes.head(path, gzip_bytes.read(path), header.offset)
    kind = nib.Nifti1Header if start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") else nib.Nifti2Header
    return label_names.parse(kind.from_fileobj(io.BytesIO(start), check=False).extensions)


def _place(header: nib.Nifti1Header, volume: Volume) -> None:
    """Say where the voxels lie: in the words of the file they came from, or by affine and codes."""
    if volume.header:
        volume.header.apply(header)
        return
    header.set_sform(volume.affine, int(volume.codes[0] > 0))
    header.set_qform(volume.affine, int(volume.codes[1] > 0))
    # also codes that nibabel does not know
    header["sform_code"], header["qform_code"] = volume.codes
    header.set_xyzt_units("mm")


def _checked_name(path: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        found = "a folder" if path.is_dir() else f"the name ends in {path.suffix!r}"
        raise FileError(
            f"{path}: {found}; expected .nii, .nii.gz, {', '.join(formats.ENDINGS)} or a DICOM segmentation."
        )
    return path


def _is_other(path: pathlib.Path) -> bool:
    """Whether the file has an adapter in `formats`: by its ending, or as a DICOM object whatever its name."""
    if path.name.lower().endswith(SUFFIXES):
        return False
    return bool(formats.ending(path)) or formats.is_dicom(path)


def _other_format(path: pathlib.Path, kind: str, assume_ras: bool) -> formats.Stored:
    """The file through its adapter, with its geometry checked."""
    if kind == "image" and not formats.ending(path):
        raise FileError(
            f'{path}: one DICOM object; give the folder of its series, or kind="label" for a segmentation.'
        )
    found = formats.read(path)
    if 0 in found.array.shape or found.array.ndim < 3:
        raise GeometryError(f"{path}: shape {found.array.shape}; expected a 3-D volume with no empty axis.")
    affines.check(found.affine, str(path))
    affines.check_shear(found.affine, str(path))
    return found if found.oriented else _taken_as_ras(path, found, assume_ras)


def _taken_as_ras(path: pathlib.Path, found: formats.Stored, asked: bool) -> formats.Stored:
    """The file with its axes taken as right, anterior, superior, if that was asked for."""
    if not asked:
        raise GeometryError(
            f"{path}: orientation unknown (its header gives none), so left and right cannot be told. Write it again with "
            f"one{advice.fix(', or give {} if the axes are right, anterior, superior', 'assume_ras', True)}."
        )
    warnings.warn(f"{path}: orientation unknown, taken as RAS as asked.", stacklevel=4)
    return found._replace(affine=np.diag([*affines.spacing(found.affine), 1.0]))


def _open(path: pathlib.Path) -> Volume:
    """An image file, or the DICOM series in a folder."""
    if path.is_dir():
        from ukbob_jax.volumes.dicom import read_series  # pydicom is optional

        return read_series(path)
    return read_volume(path, kind="image")


def _check_rank(path: pathlib.Path, shape: tuple[int, ...], channels: bool) -> None:
    if len(shape) == 4 and not channels:
        raise GeometryError(
            f"{path}: a 4-D image with {shape[3]} volumes, shape {shape}; expected one 3-D volume. "
            "Split it, or pass channels=True to take the volumes as channels."
        )
    if len(shape) > 4:
        raise GeometryError(
            f"{path}: a {len(shape)}-D image of shape {shape}; expected 3-D, or 4-D with channels."
        )


def _voxels(path: pathlib.Path, header: nifti_header.Header, stored: bytes) -> np.ndarray:
    """The voxels after scaling, in the order of the file (first axis fastest), writable."""
    if stored[:2] == gzip_bytes.MAGIC and header.end > gzip_bytes.MAX_RATIO * len(stored):
        raise FileError(f"{path}: truncated: the header declares {header.shape} voxels, {header.end} bytes.")
    data = gzip_bytes.inflate(path, stored, 2 * header.end + _SLACK)
    if len(data) < header.end:
        raise FileError(
            f"{path}: truncated: {len(data)} bytes, the header declares {header.shape} voxels, {header.end} bytes."
        )
    count = (header.end - header.offset) // header.dtype.itemsize
    array = np.frombuffer(data, header.dtype, count, header.offset).reshape(header.shape, order="F")
    if (header.slope, header.inter) == (1.0, 0.0):
        return array.astype(header.dtype.newbyteorder("="), order="K")
    wide = (
        np.float32 if header.dtype.itemsize <= 2 else np.float64
    )  # enough that rounding stays below float32's
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(wide, order="K") * wide(header.slope) + wide(header.inter)


def _storable(path: pathlib.Path, array: np.ndarray) -> np.ndarray:
    """`array` in a type that NIfTI readers take."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            single = array.astype(np.float32, copy=False)
        if not np.isfinite(single).all():
            raise ValuesError(f"{path}: values beyond 3.4e38 cannot be stored as float32.")
        return single
    if array.dtype.kind in "iu":
        if array.dtype.itemsize < 8:
            return array
        for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.uint32):
            if np.iinfo(dtype).min <= array.min() and array.max() <= np.iinfo(dtype).max:
                return array.astype(dtype)
    raise ValuesError(
        f"{path}: {array.dtype} voxels cannot be stored; expected floats or integers of 32 bits."
    )
