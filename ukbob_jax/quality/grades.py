"""Grades of labels, the Dice that a network predicts for each, as rows of a file beside the labels, and read back."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.quality.decisions import CHOICES
from ukbob_jax.quality.verdicts import folder

GRADES = "sentinel.jsonl"  # in the folder of `verdicts.folder`


@dataclasses.dataclass(frozen=True)
class Grade:
    """What a grader says of the label of one organ of one subject.

    Attributes:
        dice: predicted Dice, 0 to 1.
        low: lower end of its interval; None: the grader has none.
        high: upper end.
        used: slices or cubes that were looked at.
        reason: why there is no prediction, and `dice` is 0; empty where there is one.
        flagged: whether the label is not to be trusted: the grade is below the threshold, unless a person decided.
        decision: what a person decided, of `decisions.CHOICES`; empty: nothing.
    """

    dice: float
    low: float | None = None
    high: float | None = None
    used: int = 0
    reason: str = ""
    flagged: bool = False
    decision: str = ""

    @property
    def trust(self) -> float:
        """How far the label is to be believed, 0 to 1: the grade, or 1 and 0 where a person kept or refused it."""
        if self.decision:
            return 1.0 if self.decision == "keep" else 0.0
        return self.dice


def rows(grades: Iterable[tuple[str, int, Grade]]) -> Iterator[dict[str, Any]]:
    """Yield the row of each (subject, organ, grade), as `read` takes it; what is not finite becomes null."""
    for subject, organ, grade in grades:
        row = {"subject": subject, "organ": int(organ), **dataclasses.asdict(grade)}
        row |= {name: None if row[name] is None else files.json_number(row[name]) for name in ("low", "high")}
        if not grade.decision:
            del row["decision"]
        yield row


def write(
    store_path: str | os.PathLike, label: str, grades: Iterable[tuple[str, int, Grade]]
) -> pathlib.Path:
    """Write (subject, organ, grade) of label set `label` into the store; return the file.

    Raises:
        FileError: the folder cannot be written.
    """
    path = folder(store_path, label) / GRADES
    files.write_jsonl(path, rows(grades))
    return path


def read(
    store_path: str | os.PathLike, label: str, path: str | os.PathLike = ""
) -> dict[str, dict[int, Grade]]:
    """Read the grades of label set `label`: by subject, then by organ id.

    Args:
        store_path: the store.
        label: name of the label set.
        path: of another file of grades than the one in the store.
    Raises:
        FileError: the label set has not been graded, or a row of the file is no grade (the row is named).
    """
    path = pathlib.Path(path) if path else folder(store_path, label) / GRADES
    if not path.is_file():
        raise FileError(
            f"{path}: no grades of label set {label!r}. Run --config.job=sentinel, or choose another filter."
        )
    found: dict[str, dict[int, Grade]] = {}
    for number, row in enumerate(files.read_jsonl(path), 1):
        subject, organ, grade = _parsed(row, f"{path}: row {number}")
        if organ in found.setdefault(subject, {}):
            raise FileError(f"{path}: row {number}: organ {organ} of {subject} was graded before. Leave one.")
        found[subject][organ] = grade
    return found


def flagged_organs(grades: Mapping[str, Mapping[int, Grade]]) -> dict[str, set[int]]:
    """Return the ids of the organs whose label is not to be trusted, by subject; subjects without any are left out."""
    flagged = {subject: {o for o, grade in of.items() if grade.flagged} for subject, of in grades.items()}
    return {subject: organs for subject, organs in flagged.items() if organs}


def _parsed(row: Any, where: str) -> tuple[str, int, Grade]:
    """A row as subject, organ and grade."""
    try:
        subject, organ = str(row["subject"]), int(row["organ"])
        grade = Grade(
            dice=float(row["dice"]),
            low=None if row.get("low") is None else float(row["low"]),
            high=None if row.get("high") is None else float(row["high"]),
            used=int(row.get("used", 0)),
            reason=str(row.get("reason") or ""),
            flagged=bool(row["flagged"]),
            decision=str(row.get("decision") or ""),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise FileError(f"{where}: not a grade ({error!r}). Run --config.job=sentinel again.") from error
    if not (math.isfinite(grade.dice) and 0 <= grade.dice <= 1):
        raise FileError(f"{where}: dice {grade.dice} is not from 0 to 1. Run --config.job=sentinel again.")
    if grade.decision and grade.decision not in CHOICES:
        raise FileError(f"{where}: decision {grade.decision!r} is not one of {', '.join(CHOICES)}.")
    return subject, organ, grade
