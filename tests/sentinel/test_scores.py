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


def test_the_curve_rises_and_has_the_least_error_among_rising_ones():
    said = np.round(RNG.random(300), 2)
    true = np.clip(said**2 + 0.1 * RNG.standard_normal(300), 0, 1)
    knots = intervals.calibration(said, true)
    fitted = np.interp(said, *knots)
    assert (np.diff(knots[0]) > 0).all() and (np.diff(knots[1]) >= 0).all()

    def error(values):
        return np.square(values - true).sum()

    for power in (1.5, 2.0, 2.5):
        assert error(fitted) <= error(said**power)
    for level in np.unique(fitted):  # the mean of what it stands for
        np.testing.assert_allclose(true[fitted == level].mean(), level)
    with pytest.raises(MismatchError, match="give pairs"):
        intervals.calibration(said, true[1:])
