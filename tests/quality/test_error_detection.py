import numpy as np
import pytest

from tests.quality.test_solf import K, N, cohort
from ukbob_jax.quality import error_detection

SUBJECTS = [f"s{i}" for i in range(N)]
ERRORS = [
    {"subject": "s3", "organ": 2, "kind": "shrunken"},
    {"subject": "s5", "organ": 1, "kind": "leaked"},
    {"subject": "s5", "organ": 3, "kind": "shrunken"},
]


def test_truth_says_the_kind_of_every_error():
    kind, kinds = error_detection.truth(SUBJECTS, ERRORS, K)
    assert kinds == ("leaked", "shrunken") and (kind >= 0).sum() == 3
    assert (kind[3, 2], kind[5, 1], kind[5, 3]) == (1, 0, 1)


def test_scores_are_fractions_of_the_labels_that_are_there():
    measures = cohort()
    measures.voxels[:, 3] = 0  # the third error was emptied: it is missed
    kind, kinds = error_detection.truth(SUBJECTS, ERRORS, K)
    flagged = np.zeros((N, K), bool)
    flagged[3, 2] = flagged[7, 1] = flagged[:, 0] = True  # background takes no part
    found = error_detection.scores(measures, flagged, kind, kinds)
    assert found["flagged"] == 2 and found["precision"] == 0.5 and found["recall"] == pytest.approx(1 / 3)
    assert found["recall_by_kind"] == {"leaked": 0.0, "shrunken": 0.5}
    assert error_detection.flagged_fraction(found) == 2 / (2 * N)


def test_nothing_flagged_has_no_precision_and_old_files_are_read():
    kind, kinds = error_detection.truth(SUBJECTS, ERRORS, K)
    assert error_detection.scores(cohort(), np.zeros((N, K), bool), kind, kinds)["precision"] is None
    assert error_detection.flagged_fraction({"flagged_share": 0.25}) == 0.25


def test_the_sweep_flags_more_the_tighter_a_rule():
    kind, kinds = error_detection.truth(SUBJECTS, ERRORS, K)
    rows = error_detection.sweep(cohort(), kind, kinds)
    for name in ("percentile", "robust"):
        flagged = [row["flagged"] for row in rows if row["rule"] == name]
        assert flagged == sorted(flagged) and flagged[0] < flagged[-1]
    assert len(rows) == len(error_detection.EPSILONS) + len(error_detection.DEVIATIONS)
