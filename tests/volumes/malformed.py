"""Odd and broken NIfTI files with what a reader must do with each; every byte is synthetic.

Outcome "error": stop with our own error of the named class. "accept": read, with the expected values.
"either": both will do, but what is accepted must have the expected values.
"""

import gzip
import struct
from collections.abc import Callable
from typing import NamedTuple

import nibabel as nib
import numpy as np

from ukbob_jax.errors import FileError, GeometryError, MismatchError, ValuesError

SHAPE = (12, 10, 8)
SPACING = (1.5, 2.0, 3.0)
# byte offsets in the NIfTI-1 header
DIM, DATATYPE, PIXDIM, OFFSET, SCL, UNITS, QCODE, SCODE, QUATERN, SROW, MAGIC = (
    *(40, 70, 76, 108, 112, 123),
    *(252, 254, 256, 280, 344),
)


class Case(NamedTuple):
    name: str
    files: dict[str, bytes | None]  # None: a folder of that name
    outcome: str  # "error" | "accept" | "either"
    error: type[Exception] | None = None
    purpose: str = "image"  # "image" | "label" | "pair"
    expect: dict = {}  # noqa: RUF012


def affine() -> np.ndarray:
    matrix = np.diag([*SPACING, 1.0])
    matrix[:3, 3] = (-10.0, 5.0, 20.0)
    return matrix


def image() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 1000, size=SHAPE, dtype=np.int64).astype(np.int16)


def label() -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[2:6, 2:7, 1:6] = 1
    array[7:11, 3:8, 2:7] = 2
    array[0, 0, 0] = 3
    return array


def nii(array: np.ndarray, matrix=None, edit: Callable | None = None, cls=nib.Nifti1Image) -> bytes:
    """The bytes of a file with both codes 1, after `edit` has changed its header."""
    matrix = affine() if matrix is None else matrix
    volume = cls(array, matrix, dtype=array.dtype) if array.dtype == np.int64 else cls(array, matrix)
    volume.set_sform(matrix, 1)
    volume.set_qform(matrix, 1)
    volume.header.set_xyzt_units("mm")
    raw = bytearray(volume.to_bytes())
    if edit:
        edit(raw)
    return bytes(raw)


def put(*fields: tuple) -> Callable[[bytearray], None]:
    """An edit that packs (offset, format, values...) into the header."""

    def edit(raw: bytearray) -> None:
        for offset, fmt, *values in fields:
            struct.pack_into("<" + fmt, raw, offset, *values)

    return edit


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def flip(data: bytes, at: int) -> bytes:
    data = bytearray(data)
    data[at] ^= 0xFF
    return bytes(data)


def counts(array: np.ndarray) -> dict[int, int]:
    return {int(i): int(n) for i, n in zip(*np.unique(array, return_counts=True))}


SUMS = {"shape": SHAPE, "spacing": SPACING, "sum": float(image().astype(np.int64).sum())}


def unreadable() -> list[Case]:
    good, text = nii(image()), b"this is not an image\n" * 200
    noise = np.random.RandomState(1).randint(0, 256, size=5000, dtype=np.int64).astype(np.uint8).tobytes()
    level0 = gzip.compress(good, compresslevel=0, mtime=0)
    broken = {
        "missing.nii.gz": {},
        "folder.nii.gz": {"folder.nii.gz": None},
        "empty.nii.gz": b"",
        "empty.nii": b"",
        "noise.nii.gz": noise,
        "noise.nii": noise,
        "gz_of_text.nii.gz": gz(text),
        "web_page.nii.gz": b"<!DOCTYPE html><html><body>404</body></html>" * 20,
        "truncated.nii.gz": gz(good)[: len(gz(good)) * 6 // 10],
        "without_trailer.nii.gz": gz(good)[:-8],
        "truncated.nii": good[: 352 + 500],
        "one_byte_short.nii": good[:-1],
        "header_only.nii": good[:348],
        "half_a_header.nii": good[:200],
        "corrupt_middle.nii.gz": flip(level0, len(level0) // 2),
        "corrupt_deflate.nii.gz": flip(gz(good), len(gz(good)) // 2),
        "bad_length.nii.gz": flip(gz(good), -3),
        "junk_after.nii.gz": gz(good) + b"junk",
        "unknown_datatype.nii": nii(image(), edit=put((DATATYPE, "h", 9999))),
        "huge_dims.nii": nii(image(), edit=put((DIM, "8h", 3, 30000, 30000, 30000, 1, 1, 1, 1))),
        "huge_dims.nii.gz": gz(nii(image(), edit=put((DIM, "8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)))),
        "negative_dim.nii": nii(image(), edit=put((DIM, "8h", 3, -12, 10, 8, 1, 1, 1, 1))),
        "dim0_is_9.nii": nii(image(), edit=put((DIM, "h", 9))),
        "offset_nan.nii": nii(image(), edit=put((OFFSET, "f", float("nan")))),
        "offset_negative.nii": nii(image(), edit=put((OFFSET, "f", -352.0))),
        "scan.zip": b"PK\3\4" + noise,
        "slice.dcm": noise,
    }
    cases = [
        Case(name, data if isinstance(data, dict) else {name: data}, "error", FileError)
        for name, data in broken.items()
    ]
    either = {
        "bad_crc.nii.gz": flip(gz(good), -8),
        "raw_named_gz.nii.gz": good,
        "gz_named_raw.nii": gz(good),
        "bad_magic.nii": nii(image(), edit=put((MAGIC, "4s", b"abc\0"))),
        "bad_sizeof_hdr.nii": nii(image(), edit=put((0, "i", 999))),
        "nifti2.nii.gz": gz(nii(image(), cls=nib.Nifti2Image)),
        "two_members.nii.gz": gz(good[:1000]) + gz(good[1000:]),
    }
    return cases + [
        Case(name, {name: data}, "either", FileError, "image", SUMS) for name, data in either.items()
    ]


def rotated(angle: float) -> np.ndarray:
    matrix, c, s = affine(), np.cos(angle), np.sin(angle)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ matrix[:3, :3]
    return matrix


def geometry() -> list[Case]:
    def file(name: str, data: bytes, outcome: str, expect: dict, purpose: str = "image") -> Case:
        return Case(name, {f"{name}.nii.gz": gz(data)}, outcome, GeometryError, purpose, expect)

    def bad_sform(value: float) -> bytes:
        return nii(image(), edit=put((QCODE, "h", 0), (SROW, "4f", value, 0.0, 0.0, -10.0)))

    def edited(*fields: tuple) -> bytes:
        return nii(image(), edit=put(*fields))

    zero = (PIXDIM, "8f", 1.0, 1.5, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0)
    sheared, lps = affine(), affine() * np.array([[-1.0, -1.0, 1.0, 1.0]])
    sheared[0, 1] = 1.0
    stacked = np.stack([image(), image() + 1], -1)
    errors = {
        "zero_size_dim": nii(np.zeros((0, 10, 8), np.int16)),
        "two_d": nii(image()[:, :, 0]),
        "four_d": nii(stacked),
        "five_d": nii(image().reshape(12, 10, 2, 2, 2)),
        "nan_affine": bad_sform(float("nan")),
        "inf_affine": bad_sform(float("inf")),
        "singular_affine": bad_sform(0.0),
        "zero_spacing": edited(zero, (SROW, "12f", 1.5, 0, 0, -10, 0, 0, 0, 5, 0, 0, 3, 20)),
        "parallel_axes": edited((SROW, "8f", 1.5, 1.5, 0, 0, 0, 0, 0, 0)),
        "nan_pixdim_qform_only": edited((PIXDIM + 4, "f", float("nan")), (SCODE, "h", 0)),
        "left_right_ambiguous": edited((SROW, "4f", -1.5, 0, 0, 6.5)),
        "quaternion_too_long": edited((SCODE, "h", 0), (QUATERN, "3f", 1.0, 1.0, 1.0)),
    }
    either = {
        "four_d_singleton": (nii(image()[..., None]), SUMS),
        "zero_spacing_qform_only": (edited(zero, (SCODE, "h", 0)), {"warns": True}),
        "nan_pixdim_good_sform": (edited((PIXDIM + 4, "f", float("nan")), (QCODE, "h", 0)), SUMS),
        "pixdim_disagrees": (edited((PIXDIM + 4, "3f", 1, 1, 1), (QCODE, "h", 0)), SUMS | {"warns": True}),
        "sheared": (nii(image(), sheared), {"voxel_volume_mm3": 9.0}),
        "no_codes": (edited((QCODE, "2h", 0, 0)), SUMS | {"warns": True}),
        "micron": (edited((UNITS, "B", 3)), {"spacing": tuple(s / 1000 for s in SPACING)}),
        "forms_disagree": (
            edited((SROW, "12f", 2.5, 0, 0, -10, 0, 2.5, 0, 5, 0, 0, 2.5, 20), (SCODE, "h", 2)),
            {"shape": SHAPE, "spacing": (2.5, 2.5, 2.5), "warns": True},
        ),
    }
    accept = {
        "oblique": (nii(image(), rotated(0.3)), SUMS | {"orientation": "RAS"}),
        "lps": (nii(image(), lps), SUMS | {"orientation": "LPS"}),
        "pixdim0_is_zero": (edited((PIXDIM, "f", 0.0), (SCODE, "h", 0)), SUMS),
    }
    return [
        *(file(name, data, "error", {}) for name, data in errors.items()),
        file("four_d_label", nii(np.stack([label(), label()], -1)), "error", {}, "label"),
        *(file(name, data, "either", expect) for name, (data, expect) in either.items()),
        *(file(name, data, "accept", expect) for name, (data, expect) in accept.items()),
    ]


def changed(array: np.ndarray, dtype: type, value: float, at: int) -> np.ndarray:
    array = array.astype(dtype)
    array[at, at, at] = value
    return array


def values() -> list[Case]:
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    big_endian = nib.Nifti1Image(image().astype(">i2"), affine(), nib.Nifti1Header(endianness=">"))
    big_endian.set_sform(affine(), 1)
    full = (np.arange(np.prod(SHAPE)) % 256).reshape(SHAPE).astype(np.uint8)
    half = nii(label(), edit=put((SCL, "2f", 0.5, 0.0)))
    same = {"counts": counts(label())}
    found = [
        ("label_fractional", nii(changed(label(), np.float32, 1.5, 3)), "error", "label", {}),
        ("label_float_whole", nii(label().astype(np.float32)), "accept", "label", same),
        ("label_int64", nii(label().astype(np.int64)), "accept", "label", same),
        ("label_negative", nii(changed(label(), np.int16, -1, 3)), "error", "label", {}),
        (
            *("label_300", nii(changed(label(), np.int16, 300, 3)), "either", "label"),
            {"counts": counts(changed(label(), np.int16, 300, 3))},
        ),
        ("label_nan", nii(changed(label(), np.float32, np.nan, 3)), "error", "label", {}),
        ("label_scaled_by_half", half, "error", "label", {}),
        ("label_empty", nii(np.zeros(SHAPE, np.uint8)), "accept", "label", {"counts": {0: 960}}),
        ("image_nan", nii(changed(image(), np.float32, np.nan, 1)), "either", "image", {}),
        ("image_inf", nii(changed(image(), np.float32, np.inf, 1)), "either", "image", {}),
        ("image_over_float32", nii(changed(image(), np.float64, 1e300, 1)), "either", "image", {}),
        ("image_constant", nii(np.full(SHAPE, 7, np.int16)), "accept", "image", {"sum": 6720.0}),
        ("image_complex", nii(image().astype(np.complex64)), "error", "image", {}),
        ("image_rgb", nii(colour), "error", "image", {}),
        ("label_rgb", nii(colour), "error", "label", {}),
        (
            *("scaled_int16", nii(image(), edit=put((SCL, "2f", 0.5, -10.0))), "accept", "image"),
            {"sum": SUMS["sum"] * 0.5 - 9600, "shape": SHAPE},
        ),
        ("slope_zero", nii(image(), edit=put((SCL, "2f", 0.0, 5.0))), "accept", "image", SUMS),
        ("intercept_nan", nii(image(), edit=put((SCL, "2f", 1.0, np.nan))), "error", "image", {}),
        ("big_endian", big_endian.to_bytes(), "accept", "image", SUMS),
        ("uint8_full_range", nii(full), "accept", "image", {"sum": float(full.sum())}),
    ]
    return [Case(n, {f"{n}.nii": data}, out, ValuesError, why, expect) for n, data, out, why, expect in found]


def pairs() -> list[Case]:
    def moved(row: int, column: int, value: float) -> np.ndarray:
        matrix = affine()
        matrix[row, column] = value
        return matrix

    flipped = moved(0, 0, -SPACING[0])
    flipped[0, 3] += (SHAPE[0] - 1) * SPACING[0]
    swapped = np.ascontiguousarray(label().transpose(1, 0, 2))
    same = {"equals_label": True}
    labels = [
        ("control_pair", nii(label()), "accept", same),
        ("pair_shape", nii(label()[:-1]), "error", {}),
        ("pair_shifted", nii(label(), moved(0, 3, 0.0)), "error", {}),
        ("pair_half_a_voxel", nii(label(), moved(1, 3, 6.0)), "error", {}),
        ("pair_spacing", nii(label(), moved(2, 2, 2.0)), "error", {}),
        ("pair_rotated", nii(label(), rotated(0.05)), "error", {}),
        ("pair_tiny_shift", nii(label(), moved(0, 3, -10.0 + 1e-5)), "accept", same),
        ("pair_other_orientation", nii(label()[::-1], flipped), "accept", same),
        ("pair_transposed", nii(swapped, affine()[:, [1, 0, 2, 3]]), "accept", same),
        ("pair_transposed_wrong_affine", nii(swapped), "error", {}),
    ]
    return [
        Case(n, {f"{n}_image.nii": nii(image()), f"{n}_label.nii": data}, out, MismatchError, "pair", expect)
        for n, data, out, expect in labels
    ]


def cases() -> list[Case]:
    control = Case("control_image", {"control.nii.gz": gz(nii(image()))}, "accept", None, "image", SUMS)
    return [control, *unreadable(), *geometry(), *values(), *pairs()]
