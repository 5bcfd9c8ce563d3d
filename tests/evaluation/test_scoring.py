"""From label maps to rows and summaries."""

import json

import numpy as np
import pytest

from ukbob_jax.evaluation import metrics, scoring
from ukbob_jax.regions import Regions
from ukbob_jax.volumes.volume import Volume


def maps(seed=0, k=4):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, (6, 6, 6)).repeat(2, 0).repeat(2, 1).repeat(2, 2).astype(np.uint8)
    return np.roll(true, 1, 0), true


def test_rows_hold_every_metric_and_only_numbers_json_knows():
    pred, true = maps()
    affine = np.diag([2.0, 1, 1, 1])
    rows = scoring.score(
        Volume(pred, affine), Volume(true, affine), {1: "a", 3: "b", 5: "absent"}, surface=True
    )
    assert json.loads(json.dumps(rows)) == rows
    for organ, name in ((1, "a"), (3, "b")):
        assert rows[name]["dice"] == metrics.dice(pred, true, 6)[organ]
        assert rows[name]["iou"] == metrics.iou(pred, true, 6)[organ]
        assert rows[name]["sensitivity"] == metrics.sensitivity(pred, true, 6)[organ]
        assert rows[name]["specificity"] == metrics.specificity(pred, true, 6)[organ]
        assert rows[name]["true_volume_ml"] == pytest.approx((true == organ).sum() * 2 / 1000)
        assert rows[name]["hd95"] == metrics.surface(pred, true, (2, 1, 1), 6).hd95[organ]
    assert rows["absent"]["dice"] is None and rows["absent"]["hd95"] is None


def test_each_organ_has_its_tolerance():
    pred, true = maps()
    volumes = Volume(pred, np.eye(4)), Volume(true, np.eye(4))
    rows = scoring.score(*volumes, {1: "a", 2: "b"}, surface=True, tolerance_mm=0.5, tolerances_mm={"b": 1.0})
    assert rows["a"]["nsd"] == metrics.surface(pred, true, (1, 1, 1), 4, 0.5).nsd[1]
    assert rows["b"]["nsd"] == metrics.surface(pred, true, (1, 1, 1), 4, 1.0).nsd[2] > rows["a"]["nsd"]


def test_organs_that_were_not_annotated_have_no_score():
    pred, true = maps()
    volumes = Volume(pred, np.eye(4)), Volume(true, np.eye(4))
    annotated = np.arange(256) != 2
    rows = scoring.score(*volumes, {1: "a", 2: "b"}, surface=True, annotated=annotated)
    whole = scoring.score(*volumes, {1: "a", 2: "b"}, surface=True)
    assert rows["a"] == whole["a"] and set(rows["b"]) == set(whole["b"]) and set(rows["b"].values()) == {None}
    regions = scoring.score(
        *volumes,
        {0: "outer", 1: "inner"},
        surface=False,
        regions=Regions(("outer", "inner"), ((1, 2), (1,)), (2, 1), {}),
        annotated=annotated,
    )
    assert regions["outer"]["dice"] is None and regions["inner"]["dice"] == whole["a"]["dice"]
    summary = scoring.summarise([{"subject": "s", "method": "off", "organ": k, **v} for k, v in rows.items()])
    assert summary["off"]["dice"] == rows["a"]["dice"] and summary["off"]["volumes"]["b"]["count"] == 0


def test_lesions_are_more_columns_and_change_no_other():
    pred, true = maps()
    volumes = Volume(pred, np.eye(4)), Volume(true, np.eye(4))
    regions = Regions(("outer", "inner"), ((1, 2), (1,)), (2, 1), {})
    for organs, options in (({1: "a", 2: "b"}, {}), ({0: "outer", 1: "inner"}, {"regions": regions})):
        plain = scoring.score(*volumes, organs, surface=False, **options)
        rows = scoring.score(*volumes, organs, surface=False, lesions=True, **options)
        for name in organs.values():
            added = {m.removeprefix("lesion_"): v for m, v in rows[name].items() if m not in plain[name]}
            assert plain[name] == {m: v for m, v in rows[name].items() if m in plain[name]}
            assert list(added) == list(metrics.Lesions._fields)
    assert rows["inner"]["lesion_dice"] == metrics.lesions(pred, true, 1).dice
    outer = metrics.lesions(np.isin(pred, (1, 2)), np.isin(true, (1, 2)))
    assert rows["outer"]["lesion_true_positives"] == outer.true_positives > 0
    unseen = scoring.score(*volumes, {1: "a"}, surface=False, lesions=True, annotated=np.zeros(256, bool))
    assert set(unseen["a"].values()) == {None}


def rows_of(dice):
    """method -> subjects organs."""
    return [
        {"subject": f"s{i}", "method": method, "organ": f"o{j}", "dice": value, "volume_ml": 1.0 + i,
         "true_volume_ml": 2.0 + i}
        for method, scans in dice.items()
        for i, scan in enumerate(scans)
        for j, value in enumerate(scan)
    ]  # fmt: skip


def test_summary_means_over_scans_and_compares_with_off():
    rows = rows_of(
        {"off": [[0.8, 0.6], [0.5, None], [0.9, 0.7]], "etta": [[0.9, 0.6], [0.4, None], [0.9, 0.8]]}
    )
    found = scoring.summarise(rows, {"s0": "F", "s1": "M", "s2": "F"})
    assert found["off"]["dice"] == pytest.approx((0.7 + 0.5 + 0.8) / 3) and found["off"]["undefined"] == 1
    assert found["off"]["mean"]["dice"] == pytest.approx(3.5 / 5) and "against_off" not in found["off"]
    against = found["etta"]["against_off"]
    assert against["mean"] == pytest.approx(0.0, abs=1e-9) and against["worst"] == pytest.approx(-0.1)
    assert against["share_worse"] == pytest.approx(1 / 3) and against["p"] == 1
    assert found["off"]["equity"]["groups"] == {"F": pytest.approx(0.75), "M": 0.5}
    assert found["off"]["volumes"]["o0"]["pearson"] == pytest.approx(1)
    assert found["off"]["volumes"]["o0"]["mean_error"] == -1 and json.dumps(found)


@pytest.mark.parametrize("key", ["method", "adapt", "way"])
def test_rows_of_older_versions_are_read(tmp_path, key):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"subject": "s", key: "off", "dice": 0.5}) + "\n")
    assert scoring.read_rows(tmp_path / "rows.jsonl") == [{"subject": "s", "method": "off", "dice": 0.5}]
