"""Which public data sets a store was made from: keys in `datasets.json` beside its manifest, for its card."""

import json
from collections.abc import Iterable
from typing import Any

from ukbob_jax.errors import FileError
from ukbob_jax.store import schema

FILE = "datasets.json"


def read(path: str) -> list[str]:
    """Return the keys that were noted, in the order of the alphabet; empty where none were.

    Raises:
        FileError: the note is damaged.
    """
    found = schema.open_root(path).read(FILE).result()
    if found.state == "missing":
        return []
    try:
        keys: Any = json.loads(found.value)["datasets"]
        return sorted(map(str, keys))
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{path}/{FILE}: damaged ({error}). Delete it and run the ingest job again."
        ) from error


def note(path: str, keys: Iterable[str]) -> None:
    """Add keys to those of a store.

    Raises:
        FileError: what was noted before is damaged.
    """
    before = read(path)
    if (after := sorted({*before, *keys})) != before:
        schema.open_root(path).write(FILE, json.dumps({"datasets": after}).encode() + b"\n").result()
