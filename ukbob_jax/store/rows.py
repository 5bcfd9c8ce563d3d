"""Rows of a store: one line of JSON per subject that notices a flipped bit."""

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorstore as ts

from ukbob_jax.errors import FileError
from ukbob_jax.store import schema
from ukbob_jax.store.row import Subject

_CHECKSUM_BYTES = len(', "crc32": "00000000"}')


def encode_line(row: Mapping[str, Any]) -> bytes:
    """Write `row` as one line of JSON that ends with a checksum of itself."""
    body = json.dumps(row, allow_nan=False).encode()
    return body[:-1] + b', "crc32": "%08x"}' % zlib.crc32(body)


def decode_line(line: bytes, where: str) -> dict[str, Any]:
    """Read a `line` of `encode_line`, without its checksum.

    Raises:
        FileError: the line is cut off or a bit in it changed; the message starts with `where`.
    """
    line = line.strip()
    body = line[:-_CHECKSUM_BYTES] + b"}"
    if line[-_CHECKSUM_BYTES:] != b', "crc32": "%08x"}' % zlib.crc32(body):
        raise FileError(
            f"{where}: damaged (its checksum does not match). Run the ingest job again to rebuild it."
        )
    return json.loads(body)


def without_digests(subject: Subject) -> dict[str, Any]:
    """Return the row as the manifest holds it: only `done.json` needs the digests."""
    row = subject.to_json()
    del row["digests"]
    return row


def read_done(root: ts.KvStore, subject: str) -> Subject | None:
    """Read a subject's `done.json`; None where there is no such subject.

    Raises:
        FileError: the file is damaged.
    """
    key = schema.subject_folder(subject) + "done.json"
    found = root.read(key).result()
    return None if found.state == "missing" else _subject(found.value, f"{root.url}{key}")


def read_rows(root: ts.KvStore) -> list[Subject]:
    """Read every `done.json`, ordered by subject.

    Raises:
        FileError: one of them is damaged.
    """
    names = [key.decode() for key in root.list(schema.below("subjects/")).result()]
    keys = sorted(name for name in names if name.endswith("/done.json") and name.count("/") == 2)
    return [_subject(read.result().value, f"{root.url}{key}") for key, read in _read_all(root, keys)]


def create_or_open(root: ts.KvStore, path: str) -> None:
    """Mark an empty folder as a store, or check that it is one.

    Raises:
        FileError: other files are there, or a store of another format.
    """
    found = root.read("store.json").result()
    if found.state == "missing":
        if root.list().result():
            raise FileError(f"{path}: not empty and not a store. Choose another folder.")
        root.write("store.json", encode_line(schema.FORMAT) + b"\n").result()
    else:
        check_format(found.value, path)


def check_format(line: bytes, path: str) -> None:
    """Refuse a `store.json` of another format or version.

    Raises:
        FileError: naming both.
    """
    found = decode_line(line, f"{path}/store.json")
    if found != schema.FORMAT:
        raise FileError(
            f"{path}: store format {found}, this program reads {schema.FORMAT}. Ingest into a new folder."
        )


def _subject(line: bytes, where: str) -> Subject:
    return Subject.from_json(decode_line(line, where), where)


def _read_all(root: ts.KvStore, keys: list[str]) -> Iterator[tuple[str, ts.Future]]:
    ahead = 64  # reads in flight; each is a small file
    reads = {key: root.read(key) for key in keys[:ahead]}
    for number, key in enumerate(keys):
        yield key, reads.pop(key)
        if number + ahead < len(keys):
            reads[keys[number + ahead]] = root.read(keys[number + ahead])
