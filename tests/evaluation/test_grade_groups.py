"""Mean grades by organ and by group of people."""

import numpy as np
import pytest

from ukbob_jax.evaluation import equity, grade_groups, statistics
from ukbob_jax.quality.grades import Grade
from ukbob_jax.store import people


def test_organs_come_lowest_mean_first_with_their_counts():
    found = {
        "a": {1: Grade(0.9), 5: Grade(0.2, flagged=True)},
        "b": {1: Grade(0.7), 5: Grade(0.6)},
        "c": {1: Grade(0.8)},
    }
    spleen, liver = grade_groups.by_organ(found, {1: "spleen"})[::-1]
    assert liver["name"] == "class_5" and (liver["count"], liver["flagged"], liver["worst"]) == (2, 1, 0.2)
    assert spleen["mean"] == pytest.approx(0.8) and spleen["organ"] == 1
    assert (spleen["low"], spleen["high"]) == statistics.bootstrap_interval(
        np.array([0.9, 0.7, 0.8]), np.mean
    )


def test_organs_that_only_some_have_make_no_difference_between_people():
    """Every organ is graded alike in all, but men have one more, of a low grade."""
    grades, about = {}, {}
    for number in range(8):
        name, sex = f"s{number}", "FM"[number % 2]
        organs = {1: Grade(0.9), 5: Grade(0.7), **({60: Grade(0.3)} if sex == "M" else {})}
        grades[name], about[name] = organs, {"sex": sex, "site": "one"}
    np.testing.assert_allclose(equity.adjusted(grade_groups.scores(grades)), 0.7, atol=1e-12)
    (sex,) = grade_groups.by_group(grades, about)  # one site, and no ages
    assert sex["attribute"] == "sex" and [g["name"] for g in sex["groups"]] == ["F", "M"]
    assert all(g["p"] == 1 and abs(g["difference"]) < 1e-12 for g in sex["groups"])
    assert sex["scaled"] == pytest.approx(sex["overall"]) and sex["gap"] == pytest.approx(0)


def test_a_site_with_worse_labels_is_found_and_equity_says_what_it_costs():
    rng = np.random.default_rng(0)
    grades, about = {}, {}
    for number in range(24):
        name, site = f"s{number}", "ABC"[number % 3]
        grades[name] = {o: Grade(0.8 - 0.2 * (site == "C") + rng.normal(0, 0.01)) for o in (1, 5)}
        about[name] = {"site": site} if number < 23 else {}
    two = {name: {"site": a.get("site", "A").replace("B", "A")} for name, a in about.items()}
    first, second = grade_groups.by_group(grades, two)[0]["groups"]
    assert first["p"] == second["p"] == 1 / 2001  # one comparison, not two; no random division is as far
    (site,) = grade_groups.by_group(grades, about)
    rows = {g["name"]: g for g in site["groups"]}
    assert site["unknown"] == 1 and [rows[g]["count"] for g in "ABC"] == [8, 8, 7]
    assert rows["C"]["difference"] == pytest.approx(-0.2, abs=0.02) and rows["C"]["p"] < 0.01
    assert rows["C"]["low"] < rows["C"]["mean"] < rows["C"]["high"] < rows["A"]["low"]
    means = np.array([rows[g]["mean"] for g in "ABC"])
    expected = site["overall"] / (1 + np.abs(means - site["overall"]).sum())
    assert site["scaled"] == pytest.approx(expected) and site["worst"] == rows["C"]["mean"]


def test_ages_are_in_bands_and_bands_in_order():
    ages = {"a": 47.9, "b": 50, "c": "59", "d": 101.0, "e": None, "f": "old", "g": float("nan")}
    assert [people.group_of({"age_years": age}, "age", 10.0) for age in ages.values()] == [
        "40 to 50 years", "50 to 60 years", "50 to 60 years", "100 to 110 years", "", "", "",
    ]  # fmt: skip
    grades = {name: {1: Grade(0.5)} for name in ages}
    (age,) = grade_groups.by_group(grades, {name: {"age_years": a} for name, a in ages.items()})
    assert [g["name"] for g in age["groups"]] == ["40 to 50 years", "50 to 60 years", "100 to 110 years"]
    assert age["unknown"] == 3
    assert [(g["count"], g["low"]) for g in age["groups"]] == [(1, None), (2, 0.5), (1, None)]
