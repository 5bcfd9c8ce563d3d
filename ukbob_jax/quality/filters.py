"""Which labels of a cohort are learnt from, and how much each counts: SOLF's verdicts and Sentinel's grades combined."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.quality import grades, verdicts
from ukbob_jax.quality.grades import Grade

WEIGHTED = "weighted"
RULES = ("solf", "sentinel", "either", "both", WEIGHTED)
_COMBINED: dict[str, Callable[[bool, bool], bool]] = {
    "either": lambda by_solf, by_sentinel: by_solf or by_sentinel,
    "both": lambda by_solf, by_sentinel: by_solf and by_sentinel,
}

Organs = dict[str, set[int]]


class Filter(NamedTuple):
    """What is not to be trusted of a label set, by subject and organ id."""

    flagged: Organs  # labels that are not learnt from; subjects without any are left out
    weights: dict[
        str, dict[int, float]
    ]  # how much a label counts in the loss, 0 to 1; empty: all count the same


def choose(
    rule: str,
    store_path: str | os.PathLike,
    label: str,
    *,
    verdicts_path: str | os.PathLike = "",
    grades_path: str | os.PathLike = "",
    present: Mapping[str, Collection[int]] | None = None,
) -> Filter:
    """Read which labels are flagged by a rule.

    "solf" and "sentinel" take what their files flag. "either" flags what at least one of them does, "both" what they
    agree on; there a decision of a person, in whichever of the files, overrules both. "weighted" weighs each label by
    its grade (1 or 0 where a person decided) and flags those of weight 0.

    Args:
        rule: of `RULES`.
        store_path: the store.
        label: name of the label set.
        verdicts_path: of another solf.jsonl than the one in the store.
        grades_path: of another sentinel.jsonl.
        present: the organs in the label map of every subject that is learnt from: each such subject must have been
            graded, where grades are asked for.
    Raises:
        ConfigError: an unknown rule.
        FileError: what the rule asks for is not there or damaged, or a subject of `present` has no grade.
    """
    if rule not in RULES:
        raise ConfigError(f"config.data.flagged_by: {rule!r} is not one of {', '.join(RULES)}.")
    if rule == "solf":
        return Filter(verdicts.flagged_organs(store_path, label, verdicts_path), {})
    graded = grades.read(store_path, label, grades_path)
    if ungraded := sorted(s for s, organs in (present or {}).items() if organs and s not in graded):
        raise FileError(
            f"{grades_path or store_path}: {len(ungraded)} subjects of label set {label!r} have no grades, such as "
            f"{ungraded[0]}. Run --config.job=sentinel on all of them."
        )
    if rule == "sentinel":
        return Filter(grades.flagged_organs(graded), {})
    if rule == WEIGHTED:
        weights = {s: {organ: grade.trust for organ, grade in of.items()} for s, of in graded.items()}
        return Filter(
            _by_subject((s, o) for s, of in weights.items() for o, w in of.items() if not w), weights
        )
    return Filter(_combined(verdicts.read(store_path, label, verdicts_path), graded, _COMBINED[rule]), {})


def _combined(
    rows: Iterable[Mapping[str, Any]],
    graded: Mapping[str, Mapping[int, Grade]],
    rule: Callable[[bool, bool], bool],
) -> Organs:
    """Organs that are flagged by a rule (SOLF's verdict, Sentinel's) -> verdict, unless a person decided."""
    solf = {(row["subject"], row["organ"]): row for row in rows}
    sentinel = {(subject, organ): grade for subject, of in graded.items() for organ, grade in of.items()}

    def flagged(place: tuple[str, int]) -> bool:
        row, grade = solf.get(place, {}), sentinel.get(place)
        decided = {row.get("decision"), grade.decision if grade else None} - {None, ""}
        if decided:
            return decided != {"keep"}
        return rule(bool(row.get("flagged")), bool(grade and grade.flagged))

    return _by_subject(place for place in dict.fromkeys((*solf, *sentinel)) if flagged(place))


def _by_subject(places: Iterable[tuple[str, int]]) -> Organs:
    found: Organs = {}
    for subject, organ in places:
        found.setdefault(subject, set()).add(organ)
    return found
