"""Zip archives from elsewhere, unpacked in memory and within limits; nothing is ever written to disk."""

import os
import pathlib
import stat
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ukbob_jax import files
from ukbob_jax.errors import FileError

_NESTED = (b"PK\x03\x04", b"PK\x05\x06")  # how a zip begins
_SYSTEM_UNIX = 3
_ENCRYPTED = 0x1  # flag bit
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others are unpacked at once, whatever their size


class ArchiveLimits(NamedTuple):
    """What an archive may hold; a neck-to-knee Dixon scan has about 1,330 files and 0.1 GB.

    Attributes:
        files: number of members.
        file_bytes: of one member, unpacked.
        total_bytes: of all members together, unpacked.
        ratio: all members unpacked to the archive's own size; images reach 2 to 4, empty ones some tens.
    """

    files: int = 20_000
    file_bytes: int = 256 * 2**20
    total_bytes: int = 4 * 2**30
    ratio: float = 200.0


LIMITS = ArchiveLimits()


def fingerprint(path: str | os.PathLike) -> str:
    """SHA-256 of what the archive says it holds: names, sizes and checksums of its members.

    Only the list at the archive's end is read, so that 50,000 archives are checked without reading terabytes. That
    the members' bytes match their checksums is verified when they are unpacked.

    Raises:
        FileError: not a zip, or cut off.
    """
    with _open(path) as archive:
        listed = [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]
    return files.fingerprint(sorted(listed), 64)


def unpack(path: str | os.PathLike, limits: ArchiveLimits = LIMITS) -> Iterator[tuple[int, bytes]]:
    """The archive's files one after the other, each with its number from 1; folders are left out.

    Members are named by number, not by name, in messages: names may hold what should not be repeated.

    Raises:
        FileError: not a zip, damaged, encrypted, or holding what an archive of images has no use for: more than
            `limits` allow, paths that lead out of it, links, archives.
    """
    path = pathlib.Path(path)
    with _open(path) as archive:
        members = archive.infolist()
        _check(path, members, limits)
        for number, member in enumerate(members, 1):
            if not member.is_dir():
                yield number, _read(path, archive, member, number)


def _open(path: str | os.PathLike) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file.") from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FileError(f"{path}: not a zip archive, or cut off ({error}). Fetch it again.") from error


def _check(path: pathlib.Path, members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    """Refuse the archive by its list, before a byte is unpacked."""
    if len(members) > limits.files:
        raise FileError(
            f"{path}: {len(members)} members, more than {limits.files}; not an archive of one scan."
        )
    for number, member in enumerate(members, 1):
        if reason := _objection(member):
            raise FileError(
                f"{path}: member {number} {reason}. Refused; fetch the archive from its source again."
            )
        if member.file_size > limits.file_bytes:
            raise FileError(
                f"{path}: member {number} unpacks to {_size(member.file_size)}, more than {_size(limits.file_bytes)}."
            )
    total = sum(member.file_size for member in members)
    if total > limits.total_bytes:
        raise FileError(f"{path}: unpacks to {_size(total)}, more than {_size(limits.total_bytes)}.")
    if total > limits.ratio * (packed := path.stat().st_size):
        raise FileError(
            f"{path}: {_size(packed)} unpack to {_size(total)}, more than {limits.ratio:g} times; images do not."
        )


def _objection(member: zipfile.ZipInfo) -> str:
    """What is wrong with one member's entry in the list; "" where nothing is."""
    name = member.orig_filename.replace("\\", "/")
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/") or "\0" in name:
        return "has a path that leads out of the archive"
    if member.create_system == _SYSTEM_UNIX and stat.S_IFMT(kind := member.external_attr >> 16):
        if stat.S_ISLNK(kind):
            return "is a link"
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            return "is neither a file nor a folder"
    if name.lower().endswith(".zip"):
        return "is an archive in the archive"
    if member.compress_type not in _PACKINGS:
        return "is packed otherwise than by deflate"
    return "is encrypted" if member.flag_bits & _ENCRYPTED else ""


def _read(path: pathlib.Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, number: int) -> bytes:
    """One member; never more bytes than its entry announced, in memory neither, and its checksum verified."""
    try:
        with archive.open(member) as file:
            data = file.read(member.file_size + 1)  # a size given bounds what is unpacked at a time
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        reason = "its checksum does not match" if "CRC" in str(error) else type(error).__name__
        raise FileError(f"{path}: member {number} is damaged ({reason}). Fetch the archive again.") from error
    if data.startswith(_NESTED):
        raise FileError(f"{path}: member {number} is an archive in the archive. Refused; unpack it first.")
    return data


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.3g} MiB"
