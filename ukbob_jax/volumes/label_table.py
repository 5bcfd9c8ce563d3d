"""A table of label ids: what each id of a data set becomes, and its name, for ids that a store cannot hold."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ukbob_jax.errors import ConfigError, FileError, ValuesError

HIGHEST = 254  # of a target; 255 means ignore


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
            ValuesError: ids that the table does not name, with their number of voxels.
        """
        ids, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        known = {0: 0, 255: 255, **self.targets}
        missing = [f"{i} ({n} voxels)" for i, n in zip(ids.tolist(), counts.tolist()) if i not in known]
        if missing:
            more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
            raise ValuesError(
                f"{name}: label ids {', '.join(missing[:8])}{more} are not in the table {self.path}; add a row for each."
            )
        return np.array([known[i] for i in ids.tolist()], np.uint8)[inverse].reshape(labels.shape)


def read(path: str | os.PathLike) -> LabelTable:
    """The table in a JSON object {source: target or [target, name]}, or in lines `source target [name]`.

    Lines are separated by commas or blanks, `#` begins a comment, and a line of words is a heading.

    Raises:
        FileError: missing or unreadable.
        ConfigError: a row that says no two ids, a target beyond 255, or two rows for one source id.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _json(text) if path.suffix.lower() == ".json" else _lines(text)
        found = [(int(row[0]), int(row[1]), " ".join(row[2:])) for row in rows]
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise ConfigError(f"{path}: a row is not `source id, target id[, name]` ({error}).") from error
    targets = {source: target for source, target, _ in found}
    if len(targets) < len(found):
        raise ConfigError(f"{path}: two rows for one source id; keep one.")
    if wrong := [f"{s} -> {t}" for s, t in targets.items() if s < 0 or not (0 <= t <= HIGHEST or t == 255)]:
        raise ConfigError(f"{path}: {', '.join(wrong[:3])}: targets are 0 to {HIGHEST}, or 255 to ignore.")
    return LabelTable(str(path), targets, {t: name for _, t, name in found if name and t < 255})


def _json(text: str) -> Iterable[list[str]]:
    for source, target in json.loads(text).items():
        target = target if isinstance(target, list) else [target]
        yield [source, *map(str, target)]


def _lines(text: str) -> Iterable[list[str]]:
    for line in text.splitlines():
        row = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if row and row[0].lstrip("-").isdigit():
            yield row
        elif row and any(cell.lstrip("-").isdigit() for cell in row):
            raise ValueError(line)
