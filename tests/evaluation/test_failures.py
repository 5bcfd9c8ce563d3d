"""What failed and what does not apply, and means that tell them apart."""

import itertools
import json

import numpy as np
import pytest

from ukbob_jax.evaluation import failures, scoring
from ukbob_jax.volumes.volume import Volume

SPACING = (2.0, 2.0, 4.0)
AFFINE = np.diag([*SPACING, 1.0])


def truth() -> np.ndarray:
    labels = np.zeros((20, 20, 10), np.uint8)
    labels[5:13, 5:13, 3:8] = 1
    return labels


def rows_of(predictions: list[np.ndarray], true: np.ndarray) -> list[dict]:
    """A row per scan, of the one organ."""
    scores = [
        scoring.score(Volume(found, AFFINE), Volume(true, AFFINE), {1: "organ"}, surface=True)["organ"]
        for found in predictions
    ]
    return [
        {"subject": f"s{n}", "method": "off", "organ": "organ", **score} for n, score in enumerate(scores)
    ]


def old(row: dict) -> dict:
    """The row as versions without `failed` wrote it."""
    return {name: value for name, value in row.items() if name not in ("failed", "diagonal_mm")}


def test_ten_scans_of_which_five_are_missed_score_worse_than_ten_that_are_found():
    true = truth()
    shifted = np.roll(true, 2, 0)  # 4 mm off
    found = scoring.summarise(rows_of([shifted] * 10, true))["off"]
    half = scoring.summarise(rows_of([shifted] * 5 + [0 * true] * 5, true))["off"]
    diagonal = np.sqrt(40.0**2 + 40**2 + 40**2)
    assert found["mean"]["hd95"] == half["mean"]["hd95"] == found["mean"]["hd95_penalised"] == 4.0
    assert half["mean"]["hd95_penalised"] == pytest.approx((4 + diagonal) / 2)
    assert found["counts"]["hd95"] == {"finite": 10, "failed": 0, "not_applicable": 0}
    assert half["counts"]["hd95"] == half["counts"]["assd"] == {"finite": 5, "failed": 5, "not_applicable": 0}
    assert half["mean"]["assd_penalised"] > found["mean"]["assd_penalised"] == found["mean"]["assd"]
    assert half["mean"]["volume_error_penalised"] == 0.5 > found["mean"]["volume_error_penalised"] == 0
    volumes = half["volumes"]["organ"]
    assert (volumes["missed"], volumes["invented"], volumes["mean_absolute_share_penalised"]) == (5, 0, 0.5)
    assert "hd95 4.000 mm where found, 5 of 10 failed, penalised 36.641 mm" in scoring.line("off", half)
    assert json.loads(json.dumps(half, allow_nan=False)) == half


def test_each_metric_of_a_missed_an_invented_and_an_absent_structure():
    true, none = truth(), 0 * truth()
    [missed], [invented], [absent] = (rows_of([p], t) for p, t in ((none, true), (true, none), (none, none)))
    assert missed["failed"] == ["hd95", "assd"] and invented["failed"] == ["volume_error", "hd95", "assd"]
    assert absent["failed"] == [] and absent["diagonal_mm"] == missed["diagonal_mm"]
    assert (missed["sensitivity"], missed["volume_error"], missed["nsd"], missed["dice"]) == (0, -1, 0, 0)
    assert invented["sensitivity"] is None and failures.outcome(invented, "sensitivity") == "not_applicable"
    for metric in ("hd95", "assd", "volume_error", "dice", "nsd"):
        assert failures.outcome(absent, metric) == "not_applicable"
    volumes = scoring.volumes([invented, absent])["organ"]
    assert (volumes["invented"], volumes["missed"], volumes["mean_absolute_share"]) == (1, 0, None)
    assert volumes["mean_absolute_share_penalised"] == 1


def test_rows_of_older_versions_tell_what_failed_and_get_their_field_of_view():
    true, none = truth(), 0 * truth()
    for found, expected in itertools.product((none, true, np.roll(true, 1, 0)), (none, true)):
        [row] = rows_of([found], expected)
        for metric in ("hd95", "assd", "volume_error", "sensitivity", "dice", "nsd"):
            assert failures.outcome(old(row), metric) == failures.outcome(row, metric)
        assert failures.completed(old(row), row["diagonal_mm"]) == row
        assert failures.completed(row, 1.0) == row
    [missed] = rows_of([none], true)
    assert failures.penalised_mean([old(missed)], "hd95") is None  # rather than a mean of fewer
    assert failures.outcome({"hd95": None, "nsd": 0.0}, "hd95") == "failed"
    assert failures.outcome({"hd95": None, "nsd": None}, "hd95") == "not_applicable"


def test_organs_that_were_not_annotated_neither_fail_nor_count():
    true = truth()
    volumes = Volume(0 * true, AFFINE), Volume(true, AFFINE)
    row = scoring.score(*volumes, {1: "organ"}, surface=True, annotated=np.zeros(256, bool))["organ"]
    assert set(row.values()) == {None} and failures.counts([row], "hd95") == (0, 0, 1)
    assert failures.penalised_mean([row], "hd95") is None
    assert failures.completed(old(row), 9.0) == row


@pytest.mark.parametrize("metric", ["hd95", "assd", "volume_error"])
def test_more_misses_never_give_a_better_penalised_mean(metric):
    rng = np.random.default_rng(3)
    true = truth()
    predictions = [np.roll(true, rng.integers(-4, 5, 3), (0, 1, 2)) for _ in range(5)]
    predictions += [(rng.random(true.shape) < 0.9).astype(np.uint8)]  # many times too large
    before = failures.penalised_mean(rows_of(predictions, true), metric)
    for place in rng.permutation(len(predictions)):
        predictions[place] = 0 * true
        after = failures.penalised_mean(rows_of(predictions, true), metric)
        assert after >= before
        before = after
    worst = 1.0 if metric == "volume_error" else failures.diagonal_mm(true.shape, SPACING)
    assert before == pytest.approx(worst)


def test_the_diagonal_is_of_the_whole_field_of_view():
    assert failures.diagonal_mm((240, 240, 155), (1.0, 1.0, 1.0)) == pytest.approx(373.13, abs=0.01)
    assert failures.diagonal_mm((3, 4, 1, 7), (1.0, 1.0, 1e-9)) == pytest.approx(5)
