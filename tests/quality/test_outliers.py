import numpy as np
from scipy.stats import median_abs_deviation

from tests.quality.test_solf import K, N, cohort
from ukbob_jax.quality import outliers
from ukbob_jax.quality.solf import features, to_scale


def test_deviations_are_scipys_robust_z_scores():
    measures = cohort(3)
    scaled = to_scale(features(measures))
    expected = (scaled - np.median(scaled, 0)) / median_abs_deviation(scaled, scale="normal")
    np.testing.assert_allclose(outliers.deviations(measures), np.clip(expected, -20, 20), rtol=1e-4)


def test_two_of_three_must_be_odd_for_a_label_to_be_strange():
    measures = cohort(4)
    measures.body_fraction[7, 1] *= 1000
    one = outliers.strangeness(measures)[7, 1]
    measures.sphericity[7, 1] = 1e-3
    both = outliers.strangeness(measures)
    assert one < 5 and both[7, 1] > 10 and both[:, 1].argmax() == 7


def test_absent_and_undefined_labels():
    measures = cohort(5)
    for field in measures[:6]:
        field[3, 2] = 0
    measures.eccentricity[4, 2] = np.nan
    found = outliers.deviations(measures)
    assert np.isnan(found[3, 2]).all() and found[4, 2, 2] == outliers.MOST
    assert outliers.strangeness(measures)[3, 2] == 0 and np.isfinite(found[:3]).all()


def test_the_typical_label_holds_and_is_near_the_medians():
    measures, flagged = cohort(6), np.zeros((N, K), bool)
    best = outliers.typical(measures, flagged)
    distance = np.linalg.norm(outliers.deviations(measures), axis=-1)
    np.testing.assert_array_equal(best, distance.argmin(0))
    flagged[best[0], 0], flagged[:, 1] = True, True
    again = outliers.typical(measures, flagged)
    assert again[0] not in (best[0], -1) and again[1] == -1
