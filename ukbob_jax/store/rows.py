"""Rows of a store: one line of JSON per subject that notices a flipped bit."""

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from ukbob_jax.errors import FileError
from ukbob_jax.store import schema

_SEAL_BYTES = len(', "crc32": "00000000"}')


def new(subject: str, shape: tuple[int, ...], affine: np.ndarray) -> dict[str, Any]:
    """The row of a subject with an image `shape` (`x y z c`) and nothing else known; it lists every field there is."""
    return {
        "id": schema.check_name(subject, "subject"),
        "split": "",
        "shape": list(shape[:3]),  # voxels
        "spacing_mm": np.linalg.norm(affine[:3, :3], axis=0).tolist(),
        "affine": affine.tolist(),  # voxel to world, mm
        "contrasts": [str(channel) for channel in range(shape[3])],
        "labels": [],  # names of label sets
        "annotated": None,  # class ids that were looked for; None: all
        "source": "",  # checksum of what the subject was made from
        "version": 1,  # counts rewrites and added label sets
        "intensity": {},  # statistics by name, one number per channel
        "slope": None,  # per channel; None: voxels are stored as they were
        "intercept": None,
        "attributes": {},
        "quality": {},
        "present": {},  # per label set: ids of the classes in it
        "provenance": {},  # per label set
        "folders": {},  # per array, below the subject
        "digests": {},  # per array: SHA-256 of its files
    }


def identity(row: Mapping[str, Any], *arrays: str) -> dict[str, Any]:
    """Of a row with digests: what changes when one of `arrays` ("image", "label/manual") or a fact of the subject does.

    Everything in the row counts except where the subject stands and what other arrays bring: a field that is added
    to rows counts until it is listed here.
    """
    elsewhere = ("split", "labels", "version", "present", "provenance", "folders", "digests")
    same = {name: value for name, value in row.items() if name not in elsewhere}
    return same | {name: [row["folders"].get(name), row["digests"].get(name)] for name in arrays}


def seal(row: dict[str, Any]) -> bytes:
    """One line of JSON that ends with a checksum of itself."""
    body = json.dumps(row, allow_nan=False).encode()
    return body[:-1] + b', "crc32": "%08x"}' % zlib.crc32(body)


def unseal(line: bytes, where: str) -> dict[str, Any]:
    """The row in a sealed `line`, without its checksum.

    Raises:
        FileError: the line is cut off or a bit in it changed; the message starts with `where`.
    """
    line = line.strip()
    body = line[:-_SEAL_BYTES] + b"}"
    if line[-_SEAL_BYTES:] != b', "crc32": "%08x"}' % zlib.crc32(body):
        raise FileError(
            f"{where}: damaged (its checksum does not match). Run the ingest job again to rebuild it."
        )
    return json.loads(body)


def read_done(root: ts.KvStore, subject: str) -> dict[str, Any] | None:
    """The contents of a subject's `done.json`; None where there is no such subject.

    Raises:
        FileError: the file is damaged.
    """
    key = schema.subject_folder(subject) + "done.json"
    found = root.read(key).result()
    return None if found.state == "missing" else unseal(found.value, f"{root.url}{key}")


def claim(root: ts.KvStore, path: str) -> None:
    """Mark an empty folder as a store, or check that it is one.

    Raises:
        FileError: other files are there, or a store of another format.
    """
    found = root.read("store.json").result()
    if found.state == "missing":
        if root.list().result():
            raise FileError(f"{path}: not empty and not a store. Choose another folder.")
        root.write("store.json", seal(schema.FORMAT) + b"\n").result()
    else:
        check_format(found.value, path)


def check_format(line: bytes, path: str) -> None:
    """Refuse a `store.json` of another format or version.

    Raises:
        FileError: naming both.
    """
    found = unseal(line, f"{path}/store.json")
    if found != schema.FORMAT:
        raise FileError(
            f"{path}: store format {found}, this program reads {schema.FORMAT}. Ingest into a new folder."
        )


def read_rows(root: ts.KvStore) -> list[dict[str, Any]]:
    """The contents of every `done.json`, ordered by subject."""
    names = [key.decode() for key in root.list(schema.below("subjects/")).result()]
    keys = sorted(name for name in names if name.endswith("/done.json") and name.count("/") == 2)
    return [unseal(read.result().value, f"{root.url}{key}") for key, read in _read_all(root, keys)]


def lean(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the manifest holds it: without digests, which only `done.json` needs."""
    return {key: value for key, value in row.items() if key != "digests"}


def _read_all(root: ts.KvStore, keys: list[str]) -> Iterator[tuple[str, ts.Future]]:
    ahead = 64  # reads in flight; each is a small file
    reads = {key: root.read(key) for key in keys[:ahead]}
    for number, key in enumerate(keys):
        yield key, reads.pop(key)
        if number + ahead < len(keys):
            reads[keys[number + ahead]] = root.read(keys[number + ahead])
