"""Units of annotation as a table and as boxes to open beside the scan, and label sets that ignore all else."""

import csv
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ukbob_jax import files
from ukbob_jax.active.patches import Size, Unit
from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import FileError
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

COLUMNS = (
    *("rank", "subject", "start_x", "start_y", "start_z"),
    *("size_x", "size_y", "size_z", "score"),
)
AXES = "xyz"


def write(path: str | os.PathLike, units: Sequence[Unit]) -> None:
    """Write units as CSV, the most wanted first; voxels of the store, RAS+."""
    rows = [
        {"rank": rank, "subject": unit.subject, "score": f"{unit.score:.6g}"}
        | {f"start_{axis}": low for axis, low in zip(AXES, unit.start)}
        | {f"size_{axis}": side for axis, side in zip(AXES, unit.size)}
        for rank, unit in enumerate(units, 1)
    ]
    files.write_csv(path, COLUMNS, rows)


def read(path: str | os.PathLike, shapes: Mapping[str, Size] | None = None) -> list[Unit]:
    """Read what `write` has written; columns in any order.

    Args:
        path: of the file.
        shapes: of the scans that units must lie in; None: not checked.
    Raises:
        FileError: no such file, a column is missing, or a unit lies outside its scan.
    """
    found = []
    lines = csv.DictReader(files.read_text(path).splitlines())
    for number, row in enumerate(lines, 2):
        try:
            start, size = ([int(row[f"{what}_{axis}"]) for axis in AXES] for what in ("start", "size"))
            unit = Unit(
                row["subject"],
                cast(Size, tuple(start)),
                cast(Size, tuple(size)),
                float(row.get("score") or 0),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(
                f"{path}: line {number}: not a unit ({error!r}). It needs the columns {', '.join(COLUMNS[1:8])}."
            ) from error
        shape = unit.size if shapes is None else shapes.get(unit.subject)
        if shape is None:
            raise FileError(
                f"{path}: line {number}: no subject {unit.subject!r} among those to choose from. Correct it."
            )
        ends = [low + side for low, side in zip(start, size)]
        if min(start) < 0 or min(size) < 1 or any(e > n for e, n in zip(ends, shape) if shapes is not None):
            raise FileError(
                f"{path}: line {number}: {start} + {size} leaves the scan {tuple(shape)}. Correct it."
            )
        found.append(unit)
    return found


def write_boxes(folder: pathlib.Path, store: Store, units: Sequence[Unit]) -> None:
    """Write a label map per scan: each unit's voxels hold its rank, from 1, at most 65535; 0 elsewhere."""
    rank = {unit: place for place, unit in enumerate(units, 1)}
    for subject in dict.fromkeys(unit.subject for unit in units):
        row = store.rows[subject]
        array = np.zeros(row.shape, np.uint16)
        for unit in reversed([unit for unit in units if unit.subject == subject]):
            array[unit.box] = min(rank[unit], 65535)
        write_volume(folder / f"{subject}.nii.gz", Volume(array, np.asarray(row.affine)))


def only_units(label: np.ndarray, units: Sequence[Unit]) -> np.ndarray:
    """The labels within units, 255 (ignore) elsewhere; `x y z` uint8."""
    known = np.full_like(label, IGNORE)
    for unit in units:
        known[unit.box] = label[unit.box]
    return known


def write_labels(path: str, oracle: str, name: str, units: Sequence[Unit]) -> list[str]:
    """Give every subject that has units a label set of what a person would have annotated; others stay as they are.

    A label set that holds the same already is not written again, so that trainings on it can go on.

    Args:
        path: of the store.
        oracle: label set that answers.
        name: label set that is written.
        units: that are labelled.
    Returns:
        The subjects that have units, in the order of the store.
    """
    store = Store.open(path)
    of: dict[str, list[Unit]] = {}
    for unit in units:
        of.setdefault(unit.subject, []).append(unit)
    made: dict[str, dict[str, Any]] = {}
    for subject, own in of.items():
        row = store.rows[subject]
        said = {"labeller": "active", "of": oracle, "units": sorted([*u.start, *u.size] for u in own)}
        said["key"] = files.fingerprint([said, row.source, row.folders[f"label/{oracle}"]])
        if row.provenance.get(name, {}).get("key") != said["key"]:
            made[subject] = said
    if made:
        with StoreWriter(path) as writer:
            for subject, said in made.items():
                label = store.read(subject, f"label/{oracle}")
                writer.write_label(subject, name, only_units(label, of[subject]), said, like=oracle)
    return [subject for subject in store.subjects if subject in of]
