"""How well the rules find known errors: precision and recall over the rules' whole range."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.quality.limits import MIN_OUTSIDE
from ukbob_jax.quality.measures import OrganMeasures
from ukbob_jax.quality.solf import fit, fit_robust, flag

# percent
EPSILONS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.25, 4.5, 5.0, 6.0, 7.0, 10.0, 15.0, 20.0)
DEVIATIONS = (10.0, 7.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5)


def truth(
    subjects: Sequence[str], planted: Sequence[Mapping[str, Any]], num_classes: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Find which kind of error every label has, (n, num_classes): an index into the returned kinds, -1 for none.

    Args:
        planted: rows with "subject", "organ" and "kind".
    """
    kinds = tuple(sorted({row["kind"] for row in planted}))
    index = {subject: i for i, subject in enumerate(subjects)}
    kind = np.full((len(subjects), num_classes), -1)
    for row in planted:
        kind[index[row["subject"]], row["organ"]] = kinds.index(row["kind"])
    return kind, kinds


def sweep(
    measures: OrganMeasures, kind: np.ndarray, kinds: Sequence[str], min_outside: int = MIN_OUTSIDE
) -> list[dict[str, Any]]:
    """Return a row per rule and setting: what it flags of all organs present, and what it finds of the errors.

    A label that was emptied cannot be flagged; it still counts as missed. Precision is None where nothing is flagged.
    """
    rules = [("percentile", value, fit) for value in EPSILONS]
    rules += [("robust", value, fit_robust) for value in DEVIATIONS]
    return [
        {
            "rule": name,
            "setting": value,
            **scores(measures, flag(measures, rule(measures, value), min_outside), kind, kinds),
        }
        for name, value, rule in rules
    ]


def scores(
    measures: OrganMeasures, flagged: np.ndarray, kind: np.ndarray, kinds: Sequence[str]
) -> dict[str, Any]:
    """Count the fraction flagged, precision, recall, and recall per kind of error; background takes no part."""
    present, flagged, kind = (a[:, 1:] for a in (np.asarray(measures.voxels) > 0, flagged, kind))
    wrong = kind >= 0
    hits = int((flagged & wrong).sum())
    return {
        "flagged": int(flagged.sum()),
        "flagged_fraction": _fraction(int(flagged.sum()), int(present.sum())),
        "precision": _fraction(hits, int(flagged.sum())),
        "recall": _fraction(hits, int(wrong.sum())),
        "recall_by_kind": {
            name: _fraction(int((flagged & (kind == i)).sum()), int((kind == i).sum()))
            for i, name in enumerate(kinds)
        },
    }


def flagged_fraction(row: Mapping[str, Any]) -> float | None:
    """Return the fraction flagged of a row of `scores`; files written before the key had this name say "share"."""
    return row["flagged_fraction"] if "flagged_fraction" in row else row["flagged_share"]


def _fraction(part: int, whole: int) -> float | None:
    return part / whole if whole else None
