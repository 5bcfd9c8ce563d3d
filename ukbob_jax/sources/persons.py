"""Whose scan a subject is, found in its id by a pattern; and persons whom a data set puts on several sides."""

import re
import warnings
from collections.abc import Sequence

from ukbob_jax import advice
from ukbob_jax.errors import ConfigError
from ukbob_jax.volumes.case import Case, listed


def with_persons(cases: Sequence[Case], pattern: str) -> list[Case]:
    """Return the cases with the person that `pattern` finds in each subject's id.

    Raises:
        ConfigError: it is no regular expression with one group, or finds nobody.
    """
    found = [re.search(pattern, case.subject) for case in cases] if groups(pattern) else []
    missed = [case.subject for case, match in zip(cases, found) if not (match and match[1])]
    if len(missed) == len(cases):
        raise ConfigError(
            f"{_field()}={pattern!r} finds no person in any of {len(cases)} subjects, such as "
            f"{listed(missed)}. Change it, or leave it out."
        )
    if missed:
        warnings.warn(
            f"{_field()}={pattern!r} finds no person in {len(missed)} of {len(cases)} subjects: "
            f"{listed(missed)}. Each counts as a person of its own.",
            stacklevel=4,
        )
    return [
        case._replace(person=match[1]) if match and match[1] else case for case, match in zip(cases, found)
    ]


def groups(pattern: str) -> int:
    """Return the number of groups of a pattern for persons, 1, or 0 without a pattern.

    Raises:
        ConfigError: no regular expression, or not one group.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"{_field()}={pattern!r} is no regular expression: {error}.") from error
    if pattern and groups != 1:
        raise ConfigError(
            f"{_field()}={pattern!r} has {groups} groups; put brackets around the person, as in (.+)_[LR]."
        )
    return groups


def warn_of_several_splits(cases: Sequence[Case]) -> None:
    """Tell of persons whom the data set itself puts into more than one split."""
    splits: dict[str, set[str]] = {}
    for case in cases:
        if case.split:
            splits.setdefault(case.person or case.subject, set()).add(case.split)
    if several := [person for person, names in splits.items() if len(names) > 1]:
        warnings.warn(
            f"{len(several)} persons are in several splits of the data set: {listed(several)}. Scores will look better "
            "than on new persons; put all scans of a person into one split.",
            stacklevel=4,
        )


def _field() -> str:
    """The setting as the user wrote it."""
    return advice.setting("person") or "person"
