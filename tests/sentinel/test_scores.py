"""Agreement, ROC area, precision and the calibration curve against values by other means."""

import numpy as np
import pytest
from scipy import stats

from ukbob_jax.errors import MismatchError
from ukbob_jax.sentinel import intervals, scores

RNG = np.random.default_rng(0)


def test_roc_area_is_the_share_of_pairs_in_order():
    value, positive = RNG.integers(0, 6, 60), RNG.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in value[positive] for b in value[~positive]]
    np.testing.assert_allclose(scores.roc_area(value, positive), np.mean(pairs))
    assert np.isnan(scores.roc_area(value, np.zeros(60, bool)))


def test_precision_at_recall_takes_as_few_as_hold_that_share():
    value = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4])
    positive = np.array([1, 0, 1, 0, 0, 1, 0], bool)
    assert scores.precision_at_recall(value, positive, 0.3) == 1
    np.testing.assert_allclose(scores.precision_at_recall(value, positive, 0.6), 2 / 3)
    np.testing.assert_allclose(scores.precision_at_recall(value, positive, 1.0), 3 / 7)  # both of 0.4


def test_numbers_tell_organs_and_kinds_apart():
    true, organ = RNG.random(40), np.repeat([1, 2, 3, 4], 10)
    said = true + 0.1 * RNG.standard_normal(40)
    said[organ == 4] = RNG.random(10)
    kind = np.tile(["erode", "shift"], 20).tolist()
    found = scores.numbers(said, np.full(40, np.nan), true, organ, kind, unseen=(4,))
    seen = organ != 4
    np.testing.assert_allclose(found["r"], stats.pearsonr(said[seen], true[seen])[0])
    np.testing.assert_allclose(found["r_unseen"], stats.pearsonr(said[~seen], true[~seen])[0])
    erode = seen & (np.array(kind) == "erode")
    np.testing.assert_allclose(found["mae/erode"], np.abs(said - true)[erode].mean())
    np.testing.assert_allclose(found["roc_area"], scores.roc_area(1 - said[seen], true[seen] < 0.5))
    detector = scores.numbers(said, true, true, organ, kind)
    assert detector["roc_area"] == 0  # the detector's own score is taken, and this one is the wrong way round
    with pytest.raises(MismatchError, match="give one each"):
        scores.numbers(said[1:], said, true, organ, kind)


def test_the_curve_rises_everywhere_and_finds_a_known_one():
    said = RNG.random(4000)
    true = np.clip(said**2 + 0.05 * RNG.standard_normal(4000), 0, 1)
    x, y = intervals.calibration(said, true)
    assert (np.diff(x) > 0).all() and (np.diff(y) > 0).all() and (x[0], y[-1]) == (0, 1)
    grid = np.linspace(0.1, 0.9, 50)
    np.testing.assert_allclose(np.interp(grid, x, y), grid**2, atol=0.02)  # lines over a tenth of the range


def test_the_curve_pools_bins_that_fall_and_bears_few_cases():
    said = np.repeat([0.2, 0.4, 0.6, 0.8], 8)
    x, y = intervals.calibration(said, np.repeat([0.1, 0.5, 0.3, 0.9], 8))
    np.testing.assert_allclose((x, y), ([0, 0.2, 0.5, 0.8, 1], [0, 0.1, 0.4, 0.9, 1]))
    for few in (np.array([0.3]), np.full(40, 0.3)):
        x, y = intervals.calibration(few, np.full(len(few), 0.6))
        np.testing.assert_allclose((x, y), ([0, 0.3, 1], [0, 0.6, 1]))
    assert intervals.calibration(np.full(9, 0.4), np.zeros(9)) == ([0, 1], [0, 1])
    with pytest.raises(MismatchError, match="give pairs"):
        intervals.calibration(said, said[1:])
