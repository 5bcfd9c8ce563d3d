"""Measures of a cohort on disk, so that a stopped job goes on where it was."""

import io
import pathlib
import zipfile

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
    np.savez(buffer, subjects=np.array(subjects), keys=np.array(keys), **fields._asdict())
    files.write_bytes(path, buffer.getvalue())


def load(path: pathlib.Path) -> dict[str, tuple[str, OrganMeasures]]:
    """What `save` wrote; nothing where there is no such file or it is damaged or of another layout: it is a cache."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            fields = [stored[name] for name in OrganMeasures._fields]
            names, keys = stored["subjects"].tolist(), stored["keys"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    rows = (OrganMeasures(*row) for row in zip(*fields))
    return {name: (key, row) for name, key, row in zip(names, keys, rows)}
