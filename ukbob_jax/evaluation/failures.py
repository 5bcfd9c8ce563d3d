"""Metrics without a finite value: failed, or not applicable; and means in which what failed counts.

A distance *failed* where a structure is in one of the two maps only (missed or invented); a volume error where it is
in the prediction only. It does *not apply* where the structure is in neither map, or was not annotated. JSON has no
infinity: both are None in a row, and the row's `failed` lists the metrics that failed.

The mean of finite values alone rewards a network for finding only what is easy. The penalised mean counts a failed
distance as the diagonal of the field of view, as BraTS counts a missed region (374 mm, the diagonal of its images of
240 x 240 x 155 voxels of 1 mm; Bakas et al. 2018, arXiv:1811.02629), and a failed volume error as 1, a missed
structure's. No value passes these, so more failures never give a better mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Row = Mapping[str, Any]
Outcome = Literal["finite", "failed", "not_applicable"]

DISTANCES = ("hd95", "hd", "assd")  # mm
PENALISED = (*DISTANCES, "volume_error")  # metrics that can fail
SUFFIX = "_penalised"  # of the name of a penalised mean


class Counts(NamedTuple):
    """How many scan-organs have a value of a metric, how many failed, and to how many it does not apply."""

    finite: int
    failed: int
    not_applicable: int

    def __str__(self) -> str:
        return f"{self.failed} of {self.finite + self.failed}"


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Return the diagonal of a field of view of `shape` voxels x y z, mm; longer than any distance in it."""
    return float(np.linalg.norm(np.asarray(shape[:3], np.float64) * np.asarray(spacing_mm, np.float64)))


def diagonals_mm(rows: Mapping[str, Any], subjects: Iterable[str]) -> dict[str, float]:
    """Return subject -> diagonal of its field of view; `rows` are those of a store."""
    return {name: diagonal_mm(rows[name].shape, rows[name].spacing_mm) for name in subjects}


def completed(row: Row, diagonal: float) -> dict[str, Any]:
    """Return a row of scores with the entries `failed` and `diagonal_mm`, which rows of older versions lack."""
    if "failed" in row:
        return dict(row)
    failed = [metric for metric in row if outcome(row, metric) == "failed"]
    annotated = row.get("true_volume_ml") is not None
    return {**row, "failed": failed if annotated else None, "diagonal_mm": diagonal if annotated else None}


def outcome(row: Row, metric: str) -> Outcome:
    """Say whether a metric of a row has a value, failed, or does not apply.

    In rows of older versions, which do not list what failed, a distance or volume error is None without reason only
    where Dice and surface Dice have a value: the structure is in one of the maps.
    """
    if row.get(metric) is not None:
        return "finite"
    if row.get("failed") is not None:
        return "failed" if metric in row["failed"] else "not_applicable"
    present = row.get("dice") is not None or row.get("nsd") is not None
    return "failed" if metric in row and metric in PENALISED and present else "not_applicable"


def counts(rows: Iterable[Row], metric: str) -> Counts:
    """Count the outcomes of a metric."""
    found = [outcome(row, metric) for row in rows]
    return Counts(found.count("finite"), found.count("failed"), found.count("not_applicable"))


def penalised_mean(rows: Iterable[Row], metric: str) -> float | None:
    """Return the mean of one of `PENALISED` in which what failed counts as the worst value.

    Of volume errors, which are signed, the sizes are averaged, each at most 1.

    Args:
        rows: with `failed` and `diagonal_mm`, see `completed`.
        metric: its name.
    Returns:
        the mean over finite and failed values; None where there is neither, or where a distance failed in a row that
        does not know its field of view.
    """
    values: list[float] = []
    for row in rows:
        kind = outcome(row, metric)
        if kind == "not_applicable":
            continue
        if metric not in DISTANCES:
            values.append(1.0 if kind == "failed" else min(abs(row[metric]), 1.0))
        elif kind == "finite":
            values.append(row[metric])
        elif row.get("diagonal_mm") is None:
            return None
        else:
            values.append(row["diagonal_mm"])
    return float(np.mean(values)) if values else None
