"""Small files, written so that a crash leaves the old one or the new one, and fingerprints of JSON values."""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ukbob_jax.errors import FileError


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` beside `path` and rename it into place; a full disk removes the part that was written.

    Raises:
        FileError: the disk is full or the folder cannot be written.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise FileError(
            f"{path}: cannot write {len(data) / 1e6:.1f} MB: {error.strerror}. Free space or choose another folder."
        ) from error


def json_bytes(value: Any) -> bytes:
    """JSON on one line, as small as it gets."""
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def write_json(path: str | os.PathLike, value: Any) -> None:
    """`write_bytes` of `value` as indented JSON."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def write_jsonl(path: str | os.PathLike, rows: Iterable[dict]) -> None:
    """`write_bytes` of one JSON object a line."""
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """`write_bytes` of a table with a header line.

    Args:
        path: of the file.
        columns: the keys that are written, in this order; others are left out.
        rows: a missing key or None is an empty cell.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def json_number(value: float) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None


def fingerprint(value: Any, digits: int = 16) -> str:
    """The first hexadecimal digits of the SHA-256 of a JSON value; the order of a mapping's keys does not count.

    Files on disk hold what this returns: another text or hash would make them all look out of date.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]


def read_json(path: str | os.PathLike) -> Any:
    """The JSON value in `path`.

    Raises:
        FileError: the file is missing or is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file.") from error
    except (ValueError, OSError) as error:
        raise FileError(f"{path}: not readable as JSON ({error}).") from error


def read_text(path: str | os.PathLike) -> str:
    """The text in `path`, a table that people edit: UTF-8, or what Windows' spreadsheets write in its place (cp1252).

    Raises:
        FileError: missing or unreadable.
    """
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_jsonl(path: str | os.PathLike) -> list[dict]:
    """The JSON objects in `path`, one a line.

    Raises:
        FileError: the file is missing, or a line is not JSON (the line is named).
    """
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise FileError(f"{path}: line {number} is not JSON ({error}).") from error
    return rows
