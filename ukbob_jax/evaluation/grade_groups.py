"""Mean grades of a cohort's labels: by organ, and by the site, sex and age of the people, with intervals and tests."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax.evaluation import statistics
from ukbob_jax.quality.grades import ByOrgan, Grade

ATTRIBUTES = ("site", "sex", "age")  # that people are grouped by
AGE = "age_years"  # name of the age in a store


def by_organ(grades: ByOrgan, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Describe the grades of each organ, lowest mean first: JSON values.

    Returns:
        organ (id), name, count of labels, mean grade with its 95 % interval over subjects (`low`, `high`; None for one),
        `worst` grade, and how many are `flagged`.
    """
    found: dict[int, list[Grade]] = {}
    for of_subject in grades.values():
        for organ, grade in of_subject.items():
            found.setdefault(organ, []).append(grade)
    rows = []
    for organ, own in found.items():
        dice = np.array([grade.dice for grade in own])
        row = {"organ": organ, "name": names.get(organ, f"class_{organ}"), "count": len(own)}
        row |= {**_mean(dice), "worst": float(dice.min()), "flagged": sum(grade.flagged for grade in own)}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["mean"], row["organ"]))


def by_group(
    grades: ByOrgan, attributes: Mapping[str, Mapping[str, Any]], age_band: float = 10.0
) -> list[dict[str, Any]]:
    """Compare people of different sites, sexes and ages: JSON values, one entry per attribute that tells people apart.

    A person's number is the mean over organs of grade minus the organ's mean grade, plus the mean of all grades: so
    people with other organs in view, or of the other sex, are compared on equal terms. Each group is compared with all
    other people by a permutation test; p is Holm's, over the groups of one attribute (two groups are one comparison).

    Args:
        grades: of the labels.
        attributes: of the people, by subject.
        age_band: width of an age group, years.
    Returns:
        attribute, `unknown` (people without it), `groups` (name, count of people, mean with its 95 % interval,
        `difference` from the others, p), and `overall`, `worst`, `gap` (best minus worst group) and `scaled`, the
        equity-scaled mean (`statistics.equity`).
    """
    subjects = [subject for subject in grades if grades[subject]]
    scores = adjusted({subject: grades[subject] for subject in subjects})
    entries = []
    for attribute in ATTRIBUTES:
        groups = np.array([group_of(attributes.get(s, {}), attribute, age_band) for s in subjects], str)
        known = groups != ""
        names = sorted(set(groups[known].tolist()), key=_in_order)
        if len(names) < 2:
            continue
        values, groups = scores[known], groups[known]
        rows = [_compared(name, values[groups == name], values[groups != name]) for name in names]
        p_values = [row["p"] for row in rows]
        for row, p in zip(rows, p_values if len(rows) == 2 else holm(p_values)):
            row["p"] = p
        equity = statistics.equity(values.tolist(), groups.tolist())
        entry = {"attribute": attribute, "unknown": int((~known).sum()), "groups": rows}
        entry |= {name: getattr(equity, name) for name in ("overall", "worst", "gap", "scaled")}
        entries.append(entry)
    return entries


def adjusted(grades: ByOrgan) -> np.ndarray:
    """Return each subject's mean grade with differences between organs taken out, see `by_group`; float64 `n`."""
    every: dict[int, list[float]] = {}
    for of_subject in grades.values():
        for organ, grade in of_subject.items():
            every.setdefault(organ, []).append(grade.dice)
    means = {organ: float(np.mean(values)) for organ, values in every.items()}
    overall = float(np.mean([value for values in every.values() for value in values])) if every else 0.0
    return np.array(
        [overall + np.mean([grade.dice - means[o] for o, grade in of.items()]) for of in grades.values()]
    )


def group_of(attributes: Mapping[str, Any], attribute: str, age_band: float) -> str:
    """Return the name of a person's group; "": not known. Ages are in bands from 0 years on."""
    if attribute != "age":
        return str(attributes.get(attribute) or "")
    try:
        age = float(attributes.get(AGE) or "nan")
    except (TypeError, ValueError):
        return ""
    if not math.isfinite(age):
        return ""
    first = age_band * math.floor(age / age_band)
    return f"{first:g} to {first + age_band:g} years"


def holm(p: list[float]) -> list[float]:
    """Adjust p values of one family (Holm 1979): the smallest times n, the next times n - 1, ..., never falling."""
    adjusted, highest = [1.0] * len(p), 0.0
    for place, i in enumerate(np.argsort(p, kind="stable").tolist()):
        highest = max(highest, min(1.0, p[i] * (len(p) - place)))
        adjusted[i] = highest
    return adjusted


def _compared(name: str, own: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    difference, p = statistics.unpaired(own, others)
    return {"name": name, "count": len(own), **_mean(own), "difference": difference, "p": p}


def _mean(values: np.ndarray) -> dict[str, float | None]:
    low, high = statistics.mean_interval(values) if len(values) > 1 else (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high}


def _in_order(name: str) -> tuple[float, str]:
    """Bands by their first year, other names by the alphabet."""
    first = name.split(" ")[0]
    return (float(first), "") if name.endswith(" years") and first.isdigit() else (math.inf, name)
