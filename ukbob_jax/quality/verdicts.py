"""SOLF's verdicts as rows of a file beside the labels, and read back for training."""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.quality.measures import FEATURES, OrganMeasures
from ukbob_jax.quality.solf import features

VERDICTS = "solf.jsonl"


def folder(store_path: str | os.PathLike, label: str) -> pathlib.Path:
    """Return where the findings about label set `label` lie: `quality/<label>` inside the store."""
    return pathlib.Path(store_path) / "quality" / label


def rows(
    subjects: Sequence[str],
    measures: OrganMeasures,
    out: np.ndarray,
    flagged: np.ndarray,
    decided: Mapping[tuple[str, int], str] | None = None,
) -> Iterator[dict]:
    """Yield a row per organ that is present, background left out; an undefined measure is null.

    Args:
        subjects: n names.
        measures: fields (n, num_classes).
        out: bool (n, num_classes, 3), which measures leave their range.
        flagged: bool (n, num_classes).
        decided: what a person decided, by (subject, organ); such rows say so.
    """
    values, decisions = features(measures), decided or {}
    for i, column in np.argwhere(np.asarray(measures.voxels)[:, 1:] > 0).tolist():
        organ = column + 1
        found = [float(v) if np.isfinite(v) else None for v in values[i, organ]]
        row = {
            "subject": subjects[i],
            "organ": organ,
            **dict(zip(FEATURES, found)),
            "outside": [name for name, is_out in zip(FEATURES, out[i, organ]) if is_out],
            "flagged": bool(flagged[i, organ]),
        }
        if measures.seam_contact is not None and measures.seam_contact[i, organ] > 0:
            row["seam_contact"] = float(measures.seam_contact[i, organ])
        if (subjects[i], organ) in decisions:
            row["decision"] = decisions[subjects[i], organ]
        yield row


def flagged_organs(
    store_path: str | os.PathLike, label: str, path: str | os.PathLike = ""
) -> dict[str, set[int]]:
    """Read the ids of the organs whose label is not to be trusted, by subject; subjects without any are left out.

    Args:
        path: of another file of verdicts than the one in the store.
    Raises:
        FileError: the solf job has not been run on this label set, or its file is damaged.
    """
    found: dict[str, set[int]] = {}
    for row in read(store_path, label, path):
        if row["flagged"]:
            found.setdefault(row["subject"], set()).add(row["organ"])
    return found


def read(store_path: str | os.PathLike, label: str, path: str | os.PathLike = "") -> list[dict[str, Any]]:
    """Read the rows of `rows`, with arguments and errors as `flagged_organs`."""
    path = pathlib.Path(path) if path else folder(store_path, label) / VERDICTS
    if not path.is_file():
        raise FileError(
            f"{path}: no verdicts on label set {label!r}. Run --config.job=solf, or set flagged to 'off'."
        )
    return files.read_jsonl(path)
