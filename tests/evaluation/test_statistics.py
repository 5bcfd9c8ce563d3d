"""Statements about many scans, against closed forms and independent tools."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ukbob_jax.evaluation import metrics, statistics

NAN = float("nan")


def test_paired_p_counts_every_assignment_of_signs():
    a, b = np.array([0.8, 0.7, 0.9, 0.6, 0.75]), np.array([0.82, 0.76, 0.89, 0.66, 0.8])
    change = b - a
    all_means = [abs(np.mean(change * s)) for s in itertools.product((1, -1), repeat=5)]
    ours = metrics.paired(a, b)
    assert ours.p == pytest.approx(np.mean([m >= abs(change.mean()) - 1e-12 for m in all_means]))
    assert (ours.count, ours.worst, ours.share_worse) == (5, pytest.approx(-0.01), 0.2)
    assert ours.low <= ours.mean <= ours.high
    assert metrics.paired(a, a + 0.01).p == 2 / 2**5  # the least that five scans can give


def test_paired_p_of_many_scans_is_near_the_t_test():
    rng = np.random.default_rng(0)
    a = rng.normal(0.8, 0.1, 60)
    b = a + rng.normal(0.012, 0.04, 60)
    assert metrics.paired(a, b).p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)


def test_paired_counts_means_that_are_equal_but_for_rounding():
    change = np.array(
        [0.3, -0.1, -0.2]
    )  # their mean is 0, in floats 1e-17; no assignment of signs is nearer to 0
    assert metrics.paired(np.zeros(3), change).p == 1
    assert metrics.paired([0.5], [0.7]).p == 1  # one scan says nothing


def test_paired_counts_all_signs_where_these_are_few():
    change = np.random.default_rng(2).normal(0.3, 1, 13)
    signs = np.array(list(itertools.product((1, -1), repeat=13)))
    expected = (np.abs((signs * change).mean(1)) >= abs(change.mean()) - 1e-12).mean()
    assert metrics.paired(np.zeros(13), change).p == pytest.approx(expected, abs=1e-12)
    assert metrics.paired(np.zeros(13), change, samples=2000).p != expected


def test_paired_leaves_out_what_is_undefined():
    assert metrics.paired([0.5, NAN, 0.7], [0.6, 0.9, NAN])[:2] == (1, pytest.approx(0.1))
    assert metrics.paired([NAN], [0.1]).count == 0 and np.isnan(metrics.paired([NAN], [0.1]).p)
    with pytest.raises(ValueError, match="of the same scans"):
        metrics.paired([1.0], [1.0, 2.0])


def test_equity_by_hand():
    ours = metrics.equity([0.9, 0.7, 0.8, 0.6, NAN], ["F", "F", "M", "M", "M"])
    assert ours.groups == {
        "F": pytest.approx(0.8),
        "M": pytest.approx(0.7),
    } and ours.overall == pytest.approx(0.75)
    assert ours.scaled == pytest.approx(0.75 / (1 + 0.05 + 0.05))
    assert ours.scaled_std == pytest.approx(0.75 / (1 + np.std([0.8, 0.7], ddof=1)))
    assert (ours.worst, ours.gap) == (pytest.approx(0.7), pytest.approx(0.1))
    same = metrics.equity([0.8, 0.8], ["F", "M"])
    assert same.scaled == same.scaled_std == same.overall == 0.8
    assert metrics.equity([0.9, 0.7, 0.8, 0.6], list("FFMM"), alpha=2).scaled < ours.scaled
    with pytest.raises(ValueError, match="one group per score"):
        metrics.equity([0.5], ["F", "M"])


def test_volumes_agree_as_scipy_and_lin_say():
    rng = np.random.default_rng(1)
    true = rng.uniform(100, 200, 20)
    pred = 1.1 * true + rng.normal(0, 5, 20)
    ours = metrics.volume_agreement(np.append(pred, 0), np.append(true, 0))
    assert ours.count == 20 and ours.pearson == pytest.approx(stats.pearsonr(pred, true).statistic)
    assert ours.concordance < ours.pearson  # all are a tenth too large
    assert metrics.volume_agreement(true, true).concordance == pytest.approx(1)
    assert ours.mean_absolute_share == pytest.approx(0.1, abs=0.02)
    assert np.isnan(metrics.volume_agreement([1, 2], [1, 2]).pearson)


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(0).normal(0.8, 0.1, 200)
    low, high = metrics.bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(200)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.1 * half)
    assert metrics.bootstrap_interval(np.append(values, np.nan)) == (low, high)
    assert np.isnan(metrics.bootstrap_interval(np.array([np.nan]))).all()
    assert metrics.bootstrap_interval(np.array([0.7, np.nan])) == (0.7, 0.7)
    resampled = values[np.random.default_rng(0).integers(0, 200, (2000, 200))]
    np.testing.assert_allclose((low, high), np.percentile(resampled.mean(1), [2.5, 97.5]), rtol=1e-12)
    low, high = metrics.bootstrap_interval(values, np.median, level=0.5)
    assert low < np.median(values) < high < 0.82


def test_unpaired_groups_are_compared_over_every_division_where_there_are_few():
    a, b = [1.0, 2.0, 3.0], [7.0, 8.0, 9.0, 10.0]
    difference, p = statistics.unpaired(a, b)
    assert difference == -6.5 and p == 1 / 35  # one of the 35 divisions is as far, and none on the other side
    reference = stats.permutation_test(
        (a, b), lambda x, y: abs(np.mean(x) - np.mean(y)), alternative="greater"
    )
    assert p == reference.pvalue
    assert statistics.unpaired([1.0], [2.0]) == (-1.0, 1.0)
    assert statistics.unpaired([1.0], [])[1] == 1.0


def test_unpaired_p_is_uniform_without_a_difference_and_that_of_welch_where_there_are_many():
    rng = np.random.default_rng(0)
    p = np.array([statistics.unpaired(*rng.normal(size=(2, 15)), samples=400)[1] for _ in range(200)])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    a, b = rng.normal(0, 1, 900), rng.normal(0.1, 1, 900)
    of_divisions = statistics.unpaired(a, b)[1]
    assert of_divisions == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, abs=0.03)
    many = statistics.unpaired(np.tile(a, 2), np.tile(b, 2))[1]
    assert many == stats.ttest_ind(np.tile(a, 2), np.tile(b, 2), equal_var=False).pvalue


def test_the_interval_of_a_mean_of_many_is_the_normal_one_which_bootstrap_gives_too():
    values = np.random.default_rng(0).gamma(2.0, size=2001)
    found, resampled = statistics.mean_interval(values), statistics.bootstrap_interval(values, np.mean)
    np.testing.assert_allclose(found, resampled, atol=0.005)  # a twelfth of its width
    assert statistics.mean_interval(values[:9]) == statistics.bootstrap_interval(values[:9], np.mean)
