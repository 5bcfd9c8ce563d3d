"""What a person decided about labels: it overrules the limits.

A file of decisions is what the audit page exports, as JSON or as a table:

    {"format": "ukbob-decisions", "label": "auto", "decisions": [
        {"subject": "s1", "organ": 5, "decision": "keep", "version": "0001"}]}

    subject,organ,name,decision,version
    s1,5,liver,keep,0001

keep: the label holds whatever the limits say. drop: it does not. fix: it does not, until somebody corrects it; only
that can be said of an organ that is missing. A decision about a version of the label map that has been replaced since
is void.
"""

import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.errors import FileError

FORMAT = "ukbob-decisions"
CHOICES = ("keep", "drop", "fix")


class Decision(NamedTuple):
    """About one organ's label of one subject."""

    subject: str
    organ: int  # id
    decision: str  # of `CHOICES`
    version: str = ""  # of the label map that was looked at; empty: whichever


def read(path: str | os.PathLike, label: str) -> list[Decision]:
    """Read the decisions of a .json or .csv file; rows without a decision are left out.

    Raises:
        FileError: the file is missing, of another format, about another label set than `label`, has a row that is no
            decision, or decides twice and differently about one label; the message names the row.
    """
    path = pathlib.Path(path)
    rows = _rows_of_csv(path) if path.suffix.lower() == ".csv" else _rows_of_json(path, label)
    found: dict[tuple[str, int, str], Decision] = {}
    for number, row in enumerate(rows, 1):
        decision = _decision(row, f"{path}: row {number}")
        if decision is None:
            continue
        first = found.setdefault((decision.subject, decision.organ, decision.version), decision)
        if first.decision != decision.decision:
            raise FileError(
                f"{path}: row {number}: {decision.decision} for organ {decision.organ} of {decision.subject}, but "
                f"{first.decision} before. Leave one of them."
            )
    return list(found.values())


def apply(
    decisions: Sequence[Decision],
    subjects: Sequence[str],
    versions: Mapping[str, str],
    present: np.ndarray,
    flagged: np.ndarray,
) -> tuple[np.ndarray, dict[tuple[str, int], str], list[Decision]]:
    """Let decisions overrule verdicts.

    Args:
        subjects: n names.
        versions: of every subject's label map.
        present: bool (n, num_classes), which organs the label maps have.
        flagged: bool (n, num_classes), the limits' verdicts; not changed.
    Returns:
        The verdicts, the decisions that hold by (subject, organ), and those that do not: about an unknown
        subject, another version of a label map, or an absent organ.
    """
    flagged, index = flagged.copy(), {subject: i for i, subject in enumerate(subjects)}
    hold: dict[tuple[str, int], str] = {}
    void = []
    for decision in decisions:
        subject, organ, choice, version = decision
        here = subject in index and version in ("", versions[subject])
        if not here or not (present[index[subject], organ] or choice == "fix"):
            void.append(decision)
            continue
        hold[subject, organ] = choice
        flagged[index[subject], organ] = choice != "keep"
    return flagged, hold, void


def _rows_of_json(path: pathlib.Path, label: str) -> list[dict[str, Any]]:
    value = files.read_json(path)
    if not isinstance(value, dict) or value.get("format") != FORMAT or "decisions" not in value:
        raise FileError(f"{path}: not a file of decisions. Export it from the audit page.")
    if value.get("label", label) != label:
        raise FileError(f"{path}: decisions about label set {value['label']!r}, not {label!r}.")
    return value["decisions"]


def _rows_of_csv(path: pathlib.Path) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(files.read_text(path)))
    missing = {"subject", "organ", "decision"} - set(reader.fieldnames or ())
    if missing:
        raise FileError(f"{path}: no column {', '.join(sorted(missing))}. Export it from the audit page.")
    return list(reader)


def _decision(row: Any, where: str) -> Decision | None:
    try:
        choice, organ = row["decision"], int(row["organ"])
        subject, version = str(row["subject"]), str(row.get("version") or "")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise FileError(f"{where}: not a decision ({error!r}).") from error
    if not choice:
        return None
    if choice not in CHOICES:
        raise FileError(f"{where}: decision {choice!r} is not one of {', '.join(CHOICES)}.")
    if organ not in anatomy.NAMES or organ == 0:
        raise FileError(f"{where}: organ {organ} is not a structure's id (1 to {anatomy.NUM_CLASSES - 1}).")
    return Decision(subject, organ, choice, version)
