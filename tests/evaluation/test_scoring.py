"""From label maps to rows and summaries; and labels of other data sets compared with ours."""

import json

import numpy as np
import pytest

from ukbob_jax import anatomy
from ukbob_jax.evaluation import metrics, scoring, zero_shot
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


@pytest.mark.parametrize("dataset", anatomy.DATASETS)
def test_every_id_of_both_sides_is_compared_or_told(dataset):
    shared = zero_shot.common(dataset, anatomy.NAMES)
    classes = anatomy.common_classes(dataset)
    assert set(shared.organs.values()) == set(classes.names) - {"background"} and not shared.left_out
    compared = {i for i in anatomy.NAMES if shared.found[i] in shared.organs}
    assert compared | set(classes.left_out_ours) | {0, anatomy.UNUSED} == set(anatomy.NAMES)
    theirs = {i for i in anatomy.DATASETS[dataset] if shared.truth[i] in shared.organs}
    assert theirs | set(classes.left_out_theirs) | {0} == set(anatomy.DATASETS[dataset])
    assert shared.truth[anatomy.IGNORE] == anatomy.IGNORE


@pytest.mark.parametrize("dataset", anatomy.DATASETS)
def test_a_perfect_network_scores_one_on_another_data_set(dataset):
    """Their labels made from ours, class by class; what is ambiguous there has a common class here."""
    classes = anatomy.common_classes(dataset)
    ours = np.array([i for i in anatomy.NAMES if i != anatomy.UNUSED], np.uint8)
    theirs = np.array(
        [np.flatnonzero(classes.theirs == classes.ours[i])[0] if classes.ours[i] else 0 for i in ours]
    )
    shared = zero_shot.common(dataset, anatomy.NAMES)
    dice = metrics.dice(shared.found[ours], shared.truth[theirs], len(classes.names))
    assert (dice[1:] == 1).all()


def test_a_network_without_all_lobes_is_not_scored_on_lungs():
    names = {0: "background", 1: "liver", 2: "lung_upper_lobe_left", 3: "spleen"}
    shared = zero_shot.common("totalsegmentator_mr", names)
    assert set(shared.organs.values()) == {"liver", "spleen"} and "lung_left" in shared.left_out
    liver = next(k for k, name in shared.organs.items() if name == "liver")
    assert shared.found[1] == liver == shared.truth[5]
    with pytest.raises(ValueError, match="no class in common with btcv"):
        zero_shot.common("btcv", {0: "background", 1: "muscle"})
    with pytest.raises(ValueError, match="'flare' is not known"):
        zero_shot.common("flare", names)


@pytest.mark.parametrize("key", ["method", "adapt", "way"])
def test_rows_of_older_versions_are_read(tmp_path, key):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"subject": "s", key: "off", "dice": 0.5}) + "\n")
    assert scoring.read_rows(tmp_path / "rows.jsonl") == [{"subject": "s", "method": "off", "dice": 0.5}]
