"""Groups of people beside each other, against FairSeg's formulas written out."""

import statistics as of_python

import numpy as np
import pytest

from ukbob_jax.evaluation import equity, metrics, scoring

DICE = {"s0": (0.9, 0.7), "s1": (0.8, 0.8), "s2": (0.6, 0.4), "s3": (0.7, 0.5), "s4": (0.9, 0.9)}
PEOPLE = {
    "s0": {"sex": "F", "age_years": 51, "site": "one"}, "s1": {"sex": "F", "age_years": 67, "site": "one"},
    "s2": {"sex": "M", "age_years": 58, "site": "one"}, "s3": {"sex": "M", "site": "one"},
    "s4": {"sex": "F", "age_years": 69, "site": "one"},
}  # fmt: skip


def rows(method="off"):
    return [
        {"subject": s, "method": method, "organ": f"o{j}", "dice": d, "volume_ml": 1.0, "true_volume_ml": 1.0}
        for s, of in DICE.items()
        for j, d in enumerate(of)
    ]


def test_the_summary_of_an_evaluation_compares_sexes_and_ages_by_fairsegs_formulas():
    found = scoring.summarise(rows(), attributes=PEOPLE)["off"]["people"]
    assert [entry["attribute"] for entry in found] == ["sex", "age"]  # there is one site
    sex, age = found
    means = {s: np.mean(d) for s, d in DICE.items()}
    overall = np.mean(list(means.values()))
    groups = [np.mean([means[s] for s in names]) for names in (("s0", "s1", "s4"), ("s2", "s3"))]
    assert sex["overall"] == pytest.approx(overall) and sex["worst_group"] == "M"
    assert sex["worst"] == pytest.approx(groups[1]) and sex["gap"] == pytest.approx(groups[0] - groups[1])
    assert sex["scaled"] == pytest.approx(overall / (1 + sum(abs(g - overall) for g in groups)))
    assert sex["scaled_std"] == pytest.approx(overall / (1 + of_python.stdev(groups)))
    assert [g["name"] for g in age["groups"]] == ["50 to 60 years", "60 to 70 years"] and age["unknown"] == 1
    [_, wide] = scoring.summarise(rows(), attributes=PEOPLE, age_band=20.0)["off"]["people"]
    assert [g["name"] for g in wide["groups"]] == ["40 to 60 years", "60 to 80 years"]


def test_an_organ_that_is_invented_scores_zero_and_not_one():
    """FairSeg's released metric gives Dice 1 to a prediction against an empty truth; here it costs its group."""
    truth, invented = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    invented[1:3] = 1
    assert metrics.dice(invented, truth, 2)[1] == 0 and np.isnan(metrics.dice(truth, truth, 2)[1])
    scores = {s: {"organ": 1.0} for s in "abc"} | {"d": {"organ": float(metrics.dice(invented, truth, 2)[1])}}
    (sex,) = equity.by_group(scores, {s: {"sex": x} for s, x in zip("abcd", "FFMM")})
    assert sex["worst_group"] == "M" and sex["gap"] == 0.5 and sex["scaled"] < sex["overall"]


def test_without_groups_nothing_is_compared():
    assert equity.by_group({}, {}) == [] and equity.by_group({"a": {"o": 1.0}}, {"a": {"sex": "F"}}) == []
