"""What an evaluation says organ by organ: means with intervals, and each method beside another with corrected tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.evaluation import equity, failures, significance

Rows = Sequence[Mapping[str, Any]]
MEASURES = ("dice", "nsd", "hd95")  # that have an interval each
COUNTED = ("count", "failed")


def scores(rows: Rows, method: str, metric: str = "dice") -> dict[str, dict[str, float | None]]:
    """Return organ -> subject -> value of a metric, None where it has none, of the rows of one method."""
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if row["method"] == method:
            found.setdefault(row["organ"], {})[row["subject"]] = row.get(metric)
    return found


def of_subjects(rows: Rows, method: str, metric: str = "dice") -> dict[str, dict[str, float]]:
    """Return subject -> organ -> value of a metric, where it has one, of the rows of one method."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["method"] == method:
            own = found.setdefault(row["subject"], {})
            if row.get(metric) is not None:
                own[row["organ"]] = row[metric]
    return found


def table(rows: Rows, method: str) -> dict[str, dict[str, Any]]:
    """Return organ -> how well a method does on it: JSON values.

    Returns:
        organ -> for each of `MEASURES` that the rows have: "count" of scans with a value, "failed" (see `failures`),
        "mean" over the scans with a value and its 95 % bootstrap interval over scans, "low" and "high" (None of fewer
        than two).
    """
    own = [row for row in rows if row["method"] == method]
    measured = [name for name in MEASURES if any(name in row for row in own)]
    by_organ: dict[str, list[Mapping[str, Any]]] = {}
    for row in own:
        by_organ.setdefault(row["organ"], []).append(row)
    return {
        organ: {name: _described(of_organ, name) for name in measured} for organ, of_organ in by_organ.items()
    }


def _described(rows: Rows, name: str) -> dict[str, Any]:
    values = np.array([row[name] for row in rows if row.get(name) is not None], np.float64)
    counted = {"count": len(values), "failed": failures.counts(rows, name).failed}
    nothing = {"mean": None, "low": None, "high": None}
    return counted | (equity.with_interval(values) if len(values) else nothing)


def beside(rows: Rows, first: str, second: str) -> dict[str, dict[str, Any]]:
    """Compare two methods of the same rows organ by organ, see `significance.differences`."""
    return significance.differences(scores(rows, first), scores(rows, second))
