"""What ITK passes over in NRRD and MetaImage files: damaged voxels, and geometry that the header does not give."""

import math
import pathlib
import re
import zlib

from ukbob_jax.errors import FileError, GeometryError

_ANATOMICAL = re.compile(r"(left|right)-(posterior|anterior)-superior(-time)?|(LPS|LAS|RAS)T?", re.IGNORECASE)
_TURNED = ("transformmatrix", "orientation", "rotation")  # what MetaImage calls the directions of the axes
_BYTES = {"char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "float": 4, "double": 8}
_HEADER = 2**16  # bytes that a header has at most
_ZLIB_OR_GZIP = 47


def is_oriented(path: pathlib.Path) -> bool:
    """Return whether the header says towards where the axes run.

    Raises:
        FileError: the file cannot be read.
        GeometryError: lengths in another unit than mm.
    """
    fields = _fields(path, _HEADER)[0]
    if path.suffix.lower() in (".mha", ".mhd"):
        return any(name in fields for name in _TURNED)
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {"", "mm"}
    if units:
        raise GeometryError(f"{path}: its space units are {', '.join(sorted(units))}; convert them to mm.")
    return bool(_ANATOMICAL.fullmatch(fields.get("space", "")))


def check_voxels(path: pathlib.Path) -> None:
    """Refuse a MetaImage whose voxels are cut short or damaged, which ITK reads all the same.

    Raises:
        FileError: naming the file with the voxels.
    """
    if path.suffix.lower() not in (".mha", ".mhd"):
        return
    fields, rest = _fields(path)
    source = fields.get("elementdatafile", "")
    if source.upper() != "LOCAL":
        path = path.parent / source
        if not path.is_file():
            return  # a list or pattern of files, whose absence ITK tells
        rest = path.read_bytes()
    kind = fields.get("elementtype", "").removeprefix("MET_").lower()
    try:
        counts = [int(n) for n in fields.get("dimsize", "").split()]
        channels = int(fields.get("elementnumberofchannels", 1))
        skipped = max(0, int(fields.get("headersize", 0)))
    except ValueError:
        return  # ITK refuses such a header
    if kind not in _BYTES or not counts:
        return
    expected = math.prod(counts) * channels * _BYTES[kind]
    if fields.get("compresseddata", "").lower() == "true":
        rest = _inflated(path, rest[skipped:], expected)
        skipped = 0
    if len(rest) - skipped < expected:
        raise FileError(
            f"{path}: cut short: {len(rest)} bytes of voxels, {expected} are declared. Copy it again."
        )


def _inflated(path: pathlib.Path, data: bytes, expected: int) -> bytes:
    try:
        stream = zlib.decompressobj(_ZLIB_OR_GZIP)
        found = stream.decompress(data, expected + 1)
    except zlib.error as error:
        raise FileError(f"{path}: its voxels are damaged ({error}). Copy it again.") from error
    if len(found) == expected and not stream.eof:
        raise FileError(f"{path}: its voxels are cut short or damaged. Copy it again.")
    return found


def _fields(path: pathlib.Path, most: int = -1) -> tuple[dict[str, str], bytes]:
    """The header's fields by small name, and what follows the header in the first `most` bytes; -1: all."""
    try:
        with open(path, "rb") as file:
            data = file.read(most)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    meta = path.suffix.lower() in (".mha", ".mhd")
    end = re.search(rb"ElementDataFile\s*=.*(\n|$)" if meta else rb"\r?\n\r?\n", data[:_HEADER])
    head = data[: end.end() if end else _HEADER].decode("latin-1")
    pairs = (line.split("=" if meta else ":", 1) for line in head.splitlines() if not line.startswith("#"))
    fields = {pair[0].strip().lower(): pair[1].strip() for pair in pairs if len(pair) == 2}
    return fields, data[end.end() :] if end else b""
