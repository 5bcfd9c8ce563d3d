"""Many paired comparisons at once, against closed forms, scipy and statsmodels' definitions."""

import numpy as np
import pytest
from scipy import stats

from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import organs, significance, statistics

NAN = float("nan")


def test_holm_adjusts_by_what_is_left():
    np.testing.assert_allclose(significance.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0] and significance.holm([]) == []


def test_benjamini_hochberg_is_the_step_up_of_its_definition():
    p = np.random.default_rng(0).uniform(size=40) ** 3
    order = np.argsort(p)
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    expected = np.empty(len(p))
    expected[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1)
    found = significance.benjamini_hochberg(p.tolist())
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert (np.array(found) <= np.array(significance.holm(p.tolist())) + 1e-15).all()
    assert significance.benjamini_hochberg([]) == []


def test_corrections_keep_the_rate_of_false_findings_they_promise():
    """Of families of 20 true null hypotheses about 5 % have a finding under Holm, and 64 % without a correction."""
    p = np.random.default_rng(1).uniform(size=(2000, 20))
    found = np.mean([min(significance.holm(row.tolist())) <= 0.05 for row in p])
    assert found == pytest.approx(0.05, abs=0.015)  # three standard errors
    assert np.mean(p.min(1) <= 0.05) > 0.6


def test_a_comparison_that_could_not_be_made_is_no_member_of_the_family():
    assert significance.corrected([0.01, None, 0.04, NAN], "holm") == [0.02, None, 0.04, None]
    with pytest.raises(ConfigError, match="one of holm, bh"):
        significance.corrected([0.1], "bonferroni")


def test_effects_are_those_of_the_definitions_and_of_scipy():
    rng = np.random.default_rng(2)
    a = rng.normal(0.8, 0.1, 25)
    b = a + rng.normal(0.02, 0.04, 25)
    found, change = significance.effect(a, b), b - a
    t = stats.ttest_rel(b, a).statistic
    assert found.d == pytest.approx(t / 5)  # t = d sqrt(n)
    assert found.hedges_g == pytest.approx(found.d * (1 - 3 / 95))
    wilcoxon = stats.wilcoxon(change, alternative="two-sided")
    assert found.wilcoxon_p == wilcoxon.pvalue
    lower = wilcoxon.statistic  # the smaller of the two rank sums
    assert abs(found.rank_biserial) == pytest.approx(1 - 2 * lower / (25 * 26 / 2))
    assert significance.effect(b, a).rank_biserial == -found.rank_biserial
    assert significance.effect([*a, NAN], [*b, 0.3]) == found


def test_effects_without_spread():
    same = significance.effect([0.5, 0.25, 0.125], [0.5, 0.25, 0.125])
    assert (same.d, same.rank_biserial, same.wilcoxon_p) == (0.0, 0.0, 1.0)
    shifted = significance.effect([0.1, 0.2, 0.3], [0.2, 0.3, 0.4])  # equal but for rounding
    assert shifted.d == np.inf and shifted.rank_biserial == 1.0
    assert np.isnan(significance.effect([0.1], [0.2])).all()
    two = significance.effect([0.5, 0.6], [0.4, 0.3])  # g is not defined, and not 0
    assert two.d == pytest.approx(-np.sqrt(2)) and np.isnan(two.hedges_g)


def made(seed=0, shift=0.0):
    """organ -> subject -> score; "gone" has no score in anyone, "rare" in one."""
    rng = np.random.default_rng(seed)
    names = [f"s{i}" for i in range(12)]
    found: dict = {f"o{j}": dict(zip(names, rng.uniform(0.6, 0.9, 12) + shift * (j == 0))) for j in range(5)}
    found["gone"] = dict.fromkeys(names)
    found["rare"] = dict.fromkeys(names) | {"s0": 0.5 + shift}
    return found


def test_organs_are_one_family_of_comparisons():
    first, second = made(), made(shift=0.1)
    rows = significance.differences(first, second)
    assert rows["o0"]["mean"] == pytest.approx(0.1) and rows["o0"]["p"] == 2 / 2**12
    assert rows["o1"]["mean"] == 0 and rows["o1"]["p_holm"] == 1
    assert rows["o0"]["p_holm"] == rows["o0"]["p_bh"] == 5 * 2 / 2**12  # five organs can be tested
    assert (rows["rare"]["count"], rows["rare"]["p"], rows["rare"]["p_holm"]) == (1, None, None)
    assert rows["gone"]["count"] == 0 and rows["gone"]["mean"] is None
    assert "o0" not in significance.differences({"other": {}}, second)


def test_subjects_are_matched_by_name_and_not_by_place():
    first = {"a": 0.5, "b": 0.7, "c": 0.9, "only": 0.1}
    found = significance.difference(first, {"c": 0.9, "b": 0.7, "a": 0.5, "other": 0.0})
    assert (found["count"], found["mean"], found["d"]) == (3, 0.0, 0.0)


def test_the_table_of_organs_counts_what_failed_and_gives_intervals():
    values = [0.8, 0.6, None, 0.7]
    rows = [
        {"subject": f"s{i}", "method": "off", "organ": "liver", "dice": v, "hd95": None if i == 1 else v,
         "failed": ["hd95"] if i == 1 else []}
        for i, v in enumerate(values)
    ]  # fmt: skip
    [(organ, found)] = organs.table(rows, "off").items()
    assert organ == "liver" and list(found) == ["dice", "hd95"]
    assert (found["dice"]["count"], found["dice"]["failed"], found["hd95"]["failed"]) == (3, 0, 1)
    low, high = statistics.bootstrap_interval(np.array([0.8, 0.6, 0.7]), np.mean)
    assert found["dice"]["mean"] == pytest.approx(0.7)
    assert (found["dice"]["low"], found["dice"]["high"]) == (low, high)
