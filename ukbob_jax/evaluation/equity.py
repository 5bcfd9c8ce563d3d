"""Scores by site, sex and age of the people, with intervals and tests, and what their differences cost."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from ukbob_jax.evaluation import significance, statistics
from ukbob_jax.store import people

ByOrgan = Mapping[str, Mapping[Any, float]]  # subject -> organ -> score


def by_group(
    scores: ByOrgan, attributes: Mapping[str, Mapping[str, Any]], age_band: float = 10.0
) -> list[dict[str, Any]]:
    """Compare people of different sites, sexes and ages: JSON values, one entry per attribute that tells people apart.

    A person's number is the mean over organs of score minus the organ's mean score, plus the mean of all scores: so
    people with other organs in view, or of the other sex, are compared on equal terms; where all have the same organs it
    is their mean score. Each group is compared with all other people by a permutation test; p is Holm's, over the groups
    of one attribute (two groups are one comparison).

    Args:
        scores: such as Dice, higher is better.
        attributes: of the people, by subject.
        age_band: width of an age group, years.
    Returns:
        attribute, `unknown` (people without it), `groups` (name, count of people, mean with its 95 % interval,
        `difference` from the others, p), and `overall`, `worst` (lowest mean of a group), `worst_group`, `gap` (best
        minus worst group), and the equity-scaled means `scaled` and `scaled_std` (`statistics.equity`).
    """
    subjects = [subject for subject in scores if scores[subject]]
    numbers = adjusted({subject: scores[subject] for subject in subjects})
    entries = []
    for attribute in people.ATTRIBUTES:
        groups = np.array(
            [people.group_of(attributes.get(s, {}), attribute, age_band) for s in subjects], str
        )
        known = groups != ""
        names = sorted(set(groups[known].tolist()), key=people.in_order)
        if len(names) < 2:
            continue
        values, groups = numbers[known], groups[known]
        rows = [_compared(name, values[groups == name], values[groups != name]) for name in names]
        p_values = [row["p"] for row in rows]
        for row, p in zip(rows, p_values if len(rows) == 2 else significance.holm(p_values)):
            row["p"] = p
        equity = statistics.equity(values.tolist(), groups.tolist())
        worst = min(names, key=lambda name: equity.groups[name])
        entry = {"attribute": attribute, "unknown": int((~known).sum()), "groups": rows, "worst_group": worst}
        entry |= {name: getattr(equity, name) for name in ("overall", "worst", "gap", "scaled", "scaled_std")}
        entries.append(entry)
    return entries


def adjusted(scores: ByOrgan) -> np.ndarray:
    """Return each subject's mean score with differences between organs taken out, see `by_group`; float64 `n`."""
    every: dict[Hashable, list[float]] = {}
    for of_subject in scores.values():
        for organ, score in of_subject.items():
            every.setdefault(organ, []).append(score)
    means = {organ: float(np.mean(values)) for organ, values in every.items()}
    overall = float(np.mean([value for values in every.values() for value in values])) if every else 0.0
    return np.array(
        [overall + np.mean([score - means[o] for o, score in of.items()]) for of in scores.values()]
    )


def with_interval(values: np.ndarray) -> dict[str, float | None]:
    """Return the mean of `n` values and its 95 % interval; a single value has none."""
    low, high = statistics.mean_interval(values) if len(values) > 1 else (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high}


def _compared(name: str, own: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    difference, p = statistics.unpaired(own, others)
    return {"name": name, "count": len(own), **with_interval(own), "difference": difference, "p": p}
