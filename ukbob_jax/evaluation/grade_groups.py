"""Mean grades of a cohort's labels: by organ, and by the site, sex and age of the people, with intervals and tests."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax.evaluation import equity
from ukbob_jax.quality.grades import ByOrgan, Grade


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
        row |= {
            **equity.with_interval(dice),
            "worst": float(dice.min()),
            "flagged": sum(grade.flagged for grade in own),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: (row["mean"], row["organ"]))


def by_group(
    grades: ByOrgan, attributes: Mapping[str, Mapping[str, Any]], age_band: float = 10.0
) -> list[dict[str, Any]]:
    """Compare the grades of people of different sites, sexes and ages, as `equity.by_group` compares scores."""
    return equity.by_group(scores(grades), attributes, age_band)


def scores(grades: ByOrgan) -> dict[str, dict[int, float]]:
    """Return subject -> organ -> predicted Dice."""
    return {subject: {organ: grade.dice for organ, grade in of.items()} for subject, of in grades.items()}
