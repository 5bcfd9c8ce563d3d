"""A table of label ids: what each id of a data set becomes, and its name, for ids that a store cannot hold."""

import csv
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ukbob_jax import files
from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ConfigError, ValuesError

HIGHEST = IGNORE - 1  # of a target that is learnt


class LabelTable(NamedTuple):
    """Ids of a data set and what becomes of them.

    Attributes:
        path: the file, for messages.
        targets: source id to target id, 0 to 255.
        names: target id to name, where the file says so.
    """

    path: str
    targets: Mapping[int, int]
    names: Mapping[int, str]

    def apply(self, labels: np.ndarray, name: str) -> np.ndarray:
        """Target ids, uint8, of a map of source ids.

        Raises:
            ValuesError: ids other than 0 that the table does not name, with their number of voxels.
        """
        ids, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        known = {0: 0, **self.targets}
        missing = [f"{i} ({n} voxels)" for i, n in zip(ids.tolist(), counts.tolist()) if i not in known]
        if missing:
            more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
            ignore = f", `{IGNORE}, {IGNORE}` if {IGNORE} means not annotated" if IGNORE in ids else ""
            raise ValuesError(
                f"{name}: label ids {', '.join(missing[:8])}{more} are not in the table {self.path}; add a row for "
                f"each{ignore}."
            )
        return np.array([known[i] for i in ids.tolist()], np.uint8)[inverse].reshape(labels.shape)


def read(path: str | os.PathLike) -> LabelTable:
    """The table in a JSON object {source: target or [target, name]}, or in lines `source target [name]`.

    Cells are separated by commas, semicolons or blanks and may be quoted, `#` begins a comment, and a line of words is
    a heading. Names of sources that become one target are joined: "left kidney + right kidney".

    Raises:
        FileError: missing or unreadable.
        ConfigError: a row that says no two ids, a target beyond 255, two rows for one source id, or no row.
    """
    path = pathlib.Path(path)
    text = files.read_text(path)
    try:
        rows = _json(text) if path.suffix.lower() == ".json" else _lines(text)
        found = [(int(row[0]), int(row[1]), " ".join(row[2:])) for row in rows]
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise ConfigError(f"{path}: a row is not `source id, target id[, name]` ({error}).") from error
    if not found:
        raise ConfigError(f"{path}: no row `source id, target id[, name]`.")
    targets = {source: target for source, target, _ in found}
    if len(targets) < len(found):
        raise ConfigError(f"{path}: two rows for one source id; keep one.")
    if wrong := [f"{s} -> {t}" for s, t in targets.items() if s < 0 or not 0 <= t <= IGNORE]:
        raise ConfigError(
            f"{path}: {', '.join(wrong[:3])}: targets are 0 to {HIGHEST}, or {IGNORE} to ignore."
        )
    return LabelTable(str(path), targets, _names(found))


def _names(rows: Iterable[tuple[int, int, str]]) -> dict[int, str]:
    """Target id to name; the names of all its sources, each once, where they differ."""
    named: dict[int, list[str]] = {}
    for _, target, name in rows:
        if name and target != IGNORE and name not in named.setdefault(target, []):
            named[target].append(name)
    return {target: " + ".join(names) for target, names in named.items()}


def _json(text: str) -> Iterable[list[str]]:
    for source, target in json.loads(text).items():
        target = target if isinstance(target, list) else [target]
        yield [source, *map(str, target)]


def _lines(text: str) -> Iterable[list[str]]:
    for line in text.splitlines():
        row = _cells(line.split("#")[0].strip())
        if row and row[0].lstrip("-").isdigit():
            yield row
        elif any(cell.lstrip("-").isdigit() for cell in row):
            raise ValueError(line)


def _cells(line: str) -> list[str]:
    """The words of a line; of a quoted cell the words inside, whatever separates them."""
    delimiter = min(filter(line.count, ";,\t"), key=line.index, default=" ")
    rows = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
    return [word for row in rows for cell in row for word in re.split(r"[,;\s]+", cell) if word]
