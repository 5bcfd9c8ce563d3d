import numpy as np
from scipy.stats import median_abs_deviation

from tests.quality.test_solf import K, N, cohort
from ukbob_jax.quality import outliers, verdicts
from ukbob_jax.quality.solf import features, to_log_scale


def test_deviations_are_scipys_robust_z_scores():
    measures = cohort(3)
    scaled = to_log_scale(features(measures))
    expected = (scaled - np.median(scaled, 0)) / median_abs_deviation(scaled, scale="normal")
    np.testing.assert_allclose(outliers.robust_z_scores(measures), np.clip(expected, -20, 20), rtol=1e-4)


def test_two_of_three_must_be_odd_for_a_label_to_be_strange():
    measures = cohort(4)
    measures.body_fraction[7, 1] *= 1000
    one = outliers.outlier_score(measures)[7, 1]
    measures.sphericity[7, 1] = 1e-3
    both = outliers.outlier_score(measures)
    assert one < 5 and both[7, 1] > 10 and both[:, 1].argmax() == 7


def test_absent_and_undefined_labels():
    measures = cohort(5)
    for field in measures[:6]:
        field[3, 2] = 0
    measures.eccentricity[4, 2] = np.nan
    found = outliers.robust_z_scores(measures)
    assert np.isnan(found[3, 2]).all() and found[4, 2, 2] == outliers.MAX_DEVIATIONS
    assert outliers.outlier_score(measures)[3, 2] == 0 and np.isfinite(found[:3]).all()


def rows_of(measures, flagged):
    subjects = [f"s{i:03d}" for i in range(len(flagged))]
    return list(verdicts.rows(subjects, measures, np.zeros((*flagged.shape, 3), bool), flagged))


def test_ranks_as_strangeness_of_the_measures_does():
    measures = cohort(8)
    measures.eccentricity[4, 2] = np.nan
    measures.voxels[9, 3] = 0
    flagged = np.random.default_rng(0).uniform(size=(N, K)) < 0.2
    ranking = outliers.rank(rows_of(measures, flagged))
    expected = outliers.outlier_score(measures)
    places = [(int(row["subject"][1:]), row["organ"]) for row in ranking.rows]
    flagged[9, 3] = False
    assert set(places) == {(i, organ) for i, organ in np.argwhere(flagged) if organ}
    assert ranking.scores == [expected[place] for place in places]
    assert ranking.scores == sorted(ranking.scores, reverse=True)


def test_decided_labels_are_ranked_too_and_ties_go_by_subject_and_organ():
    measures = cohort(9, 12)
    for values in (measures.body_fraction, measures.sphericity, measures.eccentricity):
        values[:] = 0.5  # no label differs
    rows = rows_of(measures, np.zeros((12, K), bool))
    for row in rows[::-1][:5]:
        row["decision"] = "keep"
    ranking = outliers.rank(rows[::-1])
    assert ranking.rows == rows[-5:] and ranking.scores == [0.0] * 5
    assert outliers.rank([]) == ([], [], {})


def test_the_typical_label_holds_and_is_near_the_medians():
    measures, flagged = cohort(6), np.zeros((N, K), bool)
    distance = np.linalg.norm(outliers.robust_z_scores(measures), axis=-1)
    nearest = distance.argmin(0)
    found = outliers.rank(rows_of(measures, flagged)).representative
    assert {organ: row["subject"] for organ, row in found.items()} == {
        organ: f"s{nearest[organ]:03d}" for organ in range(1, K)
    }
    flagged[nearest[2], 2], flagged[:, 1] = True, True
    again = outliers.rank(rows_of(measures, flagged)).representative
    distance[nearest[2], 2] = np.inf
    assert again[2]["subject"] == f"s{distance[:, 2].argmin():03d}" and 1 not in again


class Counting(dict):
    """A row that counts how often a field of any row is read."""

    reads = 0

    def __getitem__(self, name):
        Counting.reads += 1
        return super().__getitem__(name)


def test_every_row_is_read_a_fixed_number_of_times():
    per_row = []
    for n in (40, 80, 320):
        measures = cohort(7, n)
        rows = [Counting(row) for row in rows_of(measures, np.ones((n, K), bool))]
        Counting.reads = 0
        assert len(outliers.rank(rows).rows) == len(rows) == n * (K - 1)
        per_row.append(Counting.reads / len(rows))
    assert 0 < per_row[0] == per_row[1] == per_row[2] < 20
