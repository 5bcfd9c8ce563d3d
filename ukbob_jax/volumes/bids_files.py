"""File names of BIDS, and the tables and sidecars that apply to a file by the inheritance principle.

BIDS specification 1.10: a name is `sub-01_ses-1_desc-aseg_dseg.nii.gz`, entities (key and value) and a suffix. A `.json`
or `.tsv` applies to the files of its own suffix whose entities include its own, in its folder and below it.
"""

import contextlib
import csv
import io
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.volumes.case import stem

LETTERS = {
    "sex": ("F", "M", "O"),
    "handedness": ("L", "R", "A"),
}  # first letters of the specification's words
UNITS = {
    "hu": "HU",
    "hounsfield unit": "HU",
    "hounsfield units": "HU",
    "suv": "SUV",
    "arbitrary": "arbitrary",
}


class Name(NamedTuple):
    """A file's name, taken apart.

    Attributes:
        entities: key to value, in their order.
        words: parts without a value, such as the "T1w" of `sub-01_T1w_label-SC_seg`.
        suffix: the last part.
    """

    entities: Mapping[str, str]
    words: tuple[str, ...]
    suffix: str


def parse(name: str) -> Name:
    """Take a name without its ending apart."""
    *parts, suffix = name.split("_")
    pairs = [part.partition("-") for part in parts]
    entities = {key: value for key, dash, value in pairs if dash}
    return Name(entities, tuple(key for key, dash, _ in pairs if not dash), suffix)


class Sidecars:
    """Tables and JSON files of one data set; each folder is listed once."""

    def __init__(self, root: pathlib.Path) -> None:
        """`root` is the data set's folder, where inheritance ends."""
        self._root = root
        self._listed: dict[tuple[pathlib.Path, str], list[tuple[pathlib.Path, Name]]] = {}
        self._content: dict[pathlib.Path, dict[Any, Any]] = {}

    def names(self, path: pathlib.Path) -> dict[int, str]:
        """Label id to name from the nearest table that applies to a label map; empty without one."""
        table = next(self._inherited(path, ".tsv"), None)
        return self._read(table, read_names) if table else {}

    def gradients(self, path: pathlib.Path) -> tuple[pathlib.Path, ...]:
        """The nearest .bval and .bvec that apply to an image; empty without one of them."""
        found = [next(self._inherited(path, ending), None) for ending in (".bval", ".bvec")]
        return tuple(file for file in found if file) if all(found) else ()

    def person(self, subject: str) -> dict[str, Any]:
        """What participants.tsv says of a subject, such as sub-01, as attributes of a store."""
        table = self._root / "participants.tsv"
        if not table.is_file():
            return {}
        about = self._root / "participants.json"
        units = self._read(about, read_fields) if about.is_file() else {}
        return attributes(self._read(table, read_participants).get(subject, {}), units)

    def participant(self, subject: str) -> dict[str, str]:
        """The row of participants.tsv of a subject, such as sub-01."""
        table = self._root / "participants.tsv"
        return self._read(table, read_participants).get(subject, {}) if table.is_file() else {}

    def scan(self, path: pathlib.Path) -> dict[str, str]:
        """The row of an image in the `_scans.tsv` of its session, or of its subject."""
        for folder in path.parents[1:3]:  # above that of the datatype
            for table in sorted(folder.glob("sub-*_scans.tsv")):
                row = self._read(table, read_scans).get(path.relative_to(folder).as_posix(), {})
                if row:
                    return row
        return {}

    def fields(self, path: pathlib.Path) -> dict[str, Any]:
        """What JSON sidecars say of an image; a nearer one overrules those above it."""
        found: dict[str, Any] = {}
        for sidecar in self._inherited(path, ".json"):
            found = {**self._read(sidecar, read_fields), **found}
        return found

    def _read(self, path: pathlib.Path, read: Callable[[pathlib.Path], dict[Any, Any]]) -> dict[Any, Any]:
        """What `read` makes of a file, once; a broken one costs its content, not the subjects it speaks of."""
        if path not in self._content:
            try:
                self._content[path] = read(path)
            except FileError as error:
                warnings.warn(f"{error} It is left out.", stacklevel=5)
                self._content[path] = {}
        return self._content[path]

    def _inherited(self, path: pathlib.Path, ending: str) -> Iterator[pathlib.Path]:
        """Files that apply to `path`, the nearest first."""
        own = parse(stem(path))
        for folder in path.parents:
            applies = [
                (len(name.entities), sidecar)
                for sidecar, name in self._list(folder, ending)
                if name.suffix == own.suffix and name.entities.items() <= own.entities.items()
            ]
            yield from (sidecar for _, sidecar in sorted(applies, reverse=True))
            if folder == self._root:
                return

    def _list(self, folder: pathlib.Path, ending: str) -> list[tuple[pathlib.Path, Name]]:
        if (folder, ending) not in self._listed:
            found = sorted(folder.glob(f"*{ending}"))
            self._listed[folder, ending] = [(p, parse(p.stem)) for p in found if not p.name.startswith(".")]
        return self._listed[folder, ending]


def read_participants(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """Rows of participants.tsv by participant_id, with names of columns in small letters.

    Raises:
        FileError: no such column.
    """
    return _rows(path, "participant_id")


def read_scans(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """Rows of a `_scans.tsv` by filename, which is relative to the table.

    Raises:
        FileError: no such column.
    """
    return _rows(path, "filename")


def _rows(path: pathlib.Path, key: str) -> dict[str, dict[str, str]]:
    """Rows of a table by its column `key`."""
    rows = csv.DictReader(io.StringIO(files.read_text(path), newline=""), delimiter="\t")
    if key not in (rows.fieldnames or ()):
        raise FileError(f"{path}: no column {key}; expected a table separated by tabs.")
    return {
        row[key]: {name.lower(): (row[name] or "").strip() for name in rows.fieldnames or ()}
        for row in rows
        if row[key]
    }


def attributes(row: Mapping[str, str], about: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a store from a row of participants.tsv; what is no number of years or kg is left out.

    Args:
        row: cells by column.
        about: participants.json, which may give units.
    """
    found: dict[str, Any] = {}
    for column, name, unit in (("age", "age_years", "y"), ("weight", "weight_kg", "k")):
        said = about.get(column)
        units = str(said.get("Units", "") if isinstance(said, dict) else "").lower()
        if units.startswith(unit) or not units:
            with contextlib.suppress(KeyError, ValueError):
                found[name] = float(row[column])
    for column, known in LETTERS.items():
        if (letter := row.get(column, row.get("gender", "") if column == "sex" else "")[:1].upper()) in known:
            found[column] = letter
    return {name: value for name, value in found.items() if value == value}  # no NaN


def read_fields(path: pathlib.Path) -> dict[str, Any]:
    """What a JSON sidecar says.

    Raises:
        FileError: not JSON, or no JSON object.
    """
    fields = files.read_json(path)
    if not isinstance(fields, dict):
        raise FileError(f"{path}: {type(fields).__name__}; a sidecar is a JSON object. Repair it.")
    return fields


def read_names(path: pathlib.Path) -> dict[int, str]:
    """Label id to name from a table with the columns `index` and `name`, separated by tabs.

    Raises:
        FileError: unreadable, without these columns, or with an index that is no whole number.
    """
    rows = csv.DictReader(io.StringIO(files.read_text(path), newline=""), delimiter="\t")
    try:
        return {int(row["index"]): row["name"].strip() for row in rows}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path}: expected a table with the columns index (whole numbers) and name, separated by tabs."
        ) from error
