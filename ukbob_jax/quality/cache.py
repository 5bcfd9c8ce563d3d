"""Measures of a cohort on disk, so that a stopped job goes on where it was."""

import io
import pathlib
import zipfile
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.quality.measures import OrganMeasures, stack


def save(path: pathlib.Path, found: dict[str, tuple[str, OrganMeasures]]) -> None:
    """Write measures by subject, each with the key of the label map it was made from.

    Raises:
        FileError: the file cannot be written.
    """
    subjects = sorted(found)
    fields = stack([found[subject][1] for subject in subjects])
    buffer = io.BytesIO()
    keys = [found[subject][0] for subject in subjects]
    stored = {name: field for name, field in fields._asdict().items() if field is not None}
    np.savez(buffer, subjects=np.array(subjects), keys=np.array(keys), **stored)
    files.write_bytes(path, buffer.getvalue())


def load(path: pathlib.Path) -> dict[str, tuple[str, OrganMeasures]]:
    """Read what `save` wrote; nothing where the file is missing, damaged or of another layout: it is a cache."""
    try:
        with (
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):  # np.load leaks a damaged file
            fields = OrganMeasures(**{name: stored[name] for name in OrganMeasures._fields if name in stored})
            names, keys = stored["subjects"].tolist(), stored["keys"].tolist()
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return {}
    return {name: (key, _row(fields, i)) for i, (name, key) in enumerate(zip(names, keys))}


def load_all(folder: pathlib.Path) -> dict[str, tuple[str, OrganMeasures]]:
    """Read what every process has saved in `folder`, each under its own name."""
    found: dict[str, tuple[str, OrganMeasures]] = {}
    for path in sorted(folder.glob("measures*.npz"), key=lambda path: path.stat().st_mtime_ns):
        found |= load(path)
    return found


def _row(fields: OrganMeasures, i: int) -> OrganMeasures:
    row: dict[str, Any] = {n: None if f is None else f[i] for n, f in fields._asdict().items()}
    return OrganMeasures(**row)
