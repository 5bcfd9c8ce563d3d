"""Bytes of a file, inflated and verified: the checksum and length at the end of a gzip stream are always read."""

import pathlib
import re
import zlib

from ukbob_jax.errors import FileError

MAGIC = b"\x1f\x8b"
MAX_RATIO = 1032  # deflate cannot pack more than this many bytes into one
_GZIP = 31  # zlib's window bits for a gzip header and trailer
_STEP = 2**17  # bytes given at a time to members after the first, since zlib copies what it leaves
_PADDING = re.compile(b"\0*")  # zeros may follow a member


def read(path: pathlib.Path, size: int = -1) -> bytes:
    """The bytes of `path` as stored, or the first `size` of them.

    Raises:
        FileError: missing, a folder, unreadable or empty.
    """
    try:
        if size < 0:
            data = path.read_bytes()
        else:
            with open(path, "rb") as file:
                data = file.read(size)
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file.") from error
    except IsADirectoryError as error:
        raise FileError(
            f"{path}: a folder; expected one .nii or .nii.gz file. DICOM needs converting first."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise FileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not data:
        raise FileError(f"{path}: the file is empty; copy it again.")
    return data


def head(path: pathlib.Path, data: bytes, size: int) -> bytes:
    """The first `size` bytes after inflation, or fewer where there are no more; a header may span gzip members."""
    if data[:2] != MAGIC:
        return data[:size]
    view, place, start = memoryview(data), 0, b""
    while len(start) < size and place < len(data):
        stream = zlib.decompressobj(_GZIP)
        while len(start) < size and not stream.eof:
            piece = view[place : place + _STEP]
            if not piece:
                return start  # cut off, which `inflate` tells
            try:
                start += stream.decompress(piece, size - len(start))
            except zlib.error as error:
                raise _corrupt(path, error) from error
            place += len(piece) - len(stream.unused_data)
        padding = _PADDING.match(data, place)  # matches always: padding may be empty
        place = padding.end() if padding else place
    return start


def inflate(path: pathlib.Path, data: bytes, limit: int) -> bytes:
    """All bytes after inflation (`data` itself when it is not gzip), CRC and length verified.

    Args:
        path: named in errors.
        data: the file as stored; several gzip members may follow each other.
        limit: refuse to inflate to more bytes than this.
    Raises:
        FileError: truncated, checksum or length wrong, stream corrupt, or more than `limit` bytes.
    """
    if data[:2] != MAGIC:
        return data
    view, place, parts, room = memoryview(data), 0, [], limit
    while place < len(data):
        stream = zlib.decompressobj(_GZIP)
        while not stream.eof:
            piece = view[place : place + _STEP] if place else view  # a usual file is one member
            if not piece:
                raise FileError(f"{path}: truncated: the gzip stream ends early; copy it again.")
            try:
                parts.append(stream.decompress(piece, room + 1))
            except zlib.error as error:
                raise _corrupt(path, error) from error
            place += len(piece) - len(stream.unused_data)
            room -= len(parts[-1])
            if room < 0:
                raise FileError(
                    f"{path}: holds over {limit} bytes, far more than its header declares; copy it again."
                )
        padding = _PADDING.match(data, place)  # matches always: padding may be empty
        place = padding.end() if padding else place
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _corrupt(path: pathlib.Path, error: zlib.error) -> FileError:
    text = str(error)
    if "data check" in text:
        text = "gzip CRC check failed"
    elif "length check" in text:
        text = "gzip length check failed"
    else:
        text = f"the gzip stream is corrupt ({text.rsplit(': ', 1)[-1]})"
    return FileError(f"{path}: {text}; copy it again from its source.")
