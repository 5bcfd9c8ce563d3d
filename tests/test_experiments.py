"""The experiments' scripts, on cohorts of a few voxels."""

import json

import numpy as np
import pytest

from experiments import small
from experiments.openmind import transfer
from experiments.real import hippocampus
from experiments.sentinel import monotone
from experiments.solf import curation, curation_figure, detect
from ukbob_jax.quality import solf
from ukbob_jax.quality.measures import OrganMeasures


def cohort() -> tuple[OrganMeasures, np.ndarray]:
    """60 subjects with 6 classes, some labels far off in all three measures."""
    rng = np.random.default_rng(0)
    wrong = rng.random((60, 6)) < 0.1
    wrong[:, 0] = False
    far = np.where(wrong, rng.uniform(0.1, 0.3, wrong.shape), 1.0)
    return (
        OrganMeasures(
            voxels=rng.integers(50, 90, wrong.shape),
            volume_mm3=np.ones(wrong.shape),
            surface_mm2=np.ones(wrong.shape),
            body_fraction=rng.lognormal(-4, 0.1, wrong.shape) * far,
            sphericity=rng.uniform(0.6, 0.7, wrong.shape) * far,
            eccentricity=np.sqrt(1 - rng.uniform(0.3, 0.4, wrong.shape) * far),
        ),
        wrong,
    )


def test_detection_tells_what_is_found_of_every_kind(tmp_path, capsys):
    path = tmp_path / "detect.json"
    detect.main(["--subjects", "24", "--shape", "32", "32", "64", "--shares", "0.1", "--output", str(path)])
    [found] = json.loads(path.read_text())["noise"].values()
    assert found["planted"] > 40 and set(found["auc"]) == {*detect.FEATURES, "two of three"}
    assert set(found["auc"]["sphericity"]) == {"all", *detect.label_errors.KINDS}
    assert found["auc"]["two of three"]["all"] > 0.75
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert "percentile 2: precision" in capsys.readouterr().out


def test_the_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 9, 40), rng.integers(0, 7, 60)
    pairs = np.sign(positive[:, None] - negative[None, :])
    assert detect.area(positive, negative) == pytest.approx((pairs + 1).mean() / 2)


def test_every_arm_leaves_out_what_its_name_says():
    measures, wrong = cohort()
    grades = np.where(wrong, 0.75, 0.95)
    grades[:, 1] = 0.4
    flagged = {arm: curation.ignored(arm, 0, measures, wrong, grades) for arm in curation.ARMS}
    assert not flagged["all"].any() and (flagged["oracle"] == wrong).all()
    assert flagged["random"].sum() == flagged["solf_2"][:, 1:].sum() > 0
    assert (flagged["random"] != curation.ignored("random", 1, measures, wrong, grades)).any()
    assert (flagged["robust"] & wrong).sum() > 0.9 * wrong.sum()
    assert (flagged["solf_5"] >= flagged["solf_1"]).all()
    assert (flagged["sentinel_8"] == (wrong | (grades < 0.5))).all()
    assert (flagged["sentinel_5"] == (grades < 0.5)).all() and not flagged["weighted"].any()
    assert (flagged["either"] == flagged["solf_5"] | flagged["sentinel_8"]).all()
    assert (flagged["both"] == flagged["solf_5"] & flagged["sentinel_8"]).all()
    assert flagged["volume"].sum() == solf.outside(measures, solf.fit(measures, 2.0))[..., 0].sum()


def test_a_level_is_told_as_change_against_the_same_seeds():
    counts = {"labels": 100, "wrong": 40, "ignored": 20, "ignored_wrong": 15}
    runs = [
        {"level": 0.5, "arm": arm, "seed": seed, "dice": dice, **counts}
        for arm, scores in {
            "all": (0.5, 0.7),
            "solf_2": (0.52, 0.74),
            "solf_2_unknown": (0.6, 0.81),
            "oracle": (0.61, 0.79),
        }.items()
        for seed, dice in enumerate(scores)
    ]
    rows = {row["arm"]: row for row in curation.table(runs)}
    assert rows["all"]["gain"] is None and rows["all"]["dice"] == pytest.approx(0.6)
    assert rows["all"]["error"] == pytest.approx(0.1)
    assert rows["solf_2"]["gain"] == pytest.approx(0.03)
    assert rows["solf_2"]["gain_error"] == pytest.approx(0.01)
    assert rows["solf_2"]["p"] == pytest.approx(0.2048, abs=1e-3)  # Student's t = 3, one degree of freedom
    text = curation_figure.markdown(list(rows.values()))
    assert "| ε = 2 | 20.0% | 75% | 0.630 ± 0.110 | +0.030 ± 0.010 | 30% | 0.20 | 2 |" in text
    assert (
        curation_figure.draw(list(rows.values()))[:4] == b"\x89PNG"
        and curation_figure.draw([])[:4] == b"\x89PNG"
    )


def test_a_batch_holds_what_a_subject_says_and_all_come_once():
    images = np.arange(3, dtype=np.float16).reshape(3, 1, 1, 1, 1)
    labels, unknown = (
        np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1),
        np.zeros((3, len(small.CLASSES)), bool),
    )
    unknown[1, 2] = True
    stream = small.batches(images, labels, 0, unknown)
    first = [next(stream) for _ in range(3)]
    assert sorted(int(batch["label"][0, 0, 0, 0]) for batch in first) == [0, 1, 2]
    assert "weights" not in first[0]
    weights = np.full((3, len(small.CLASSES)), 0.5) * (1 + np.arange(3))[:, None]
    weighed = next(small.batches(images, labels, 0, weights=weights))
    assert (weighed["weights"] == 0.5 * (1 + weighed["label"].item())).all()
    for batch in first:
        assert batch["image"].dtype == np.float32 and batch["image"].item() == batch["label"].item()
        assert batch["annotated"][0, 2] == (batch["label"].item() != 1)


@pytest.mark.slow
def test_curation_resumes_and_counts_what_it_left_out(tmp_path, monkeypatch):
    arguments = [
        "--workdir",
        str(tmp_path),
        "--levels",
        "0.3",
        "--seeds",
        "1",
        "--subjects",
        "12",
        "--tests",
        "1",
    ]
    arguments += [
        "--steps",
        "10",
        "--width",
        "4",
        "--shape",
        "16",
        "16",
        "32",
        "--arms",
        "all",
        "oracle",
        "weighted",
    ]
    arguments += ["--grader_steps", "4"]
    monkeypatch.setattr(curation.grader, "TRAIN", 4)
    monkeypatch.setattr(curation.grader, "VAL", 2)
    curation.main([*arguments, "--minutes", "-1"])
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == []
    curation.main(arguments)
    rows = {row["arm"]: row for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert rows["all"]["ignored"] == rows["weighted"]["ignored"] == 0
    grades = np.load(tmp_path / "grades_0.3_0.npy")
    assert ((grades >= 0) & (grades <= 1)).all() and (grades < 1).any()
    assert rows["oracle"]["ignored"] == rows["oracle"]["wrong"] > 0
    monkeypatch.setattr(curation, "Work", None)  # would fail
    before = (tmp_path / "results.json").read_bytes()
    curation.main(arguments)
    assert (tmp_path / "results.json").read_bytes() == before
    assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"


def test_minutes_are_those_of_all_starts():
    assert hippocampus.last_of_starts([5.0, 10.0, 15.0, 4.0, 9.0]) == [15.0, 9.0]
    assert hippocampus.last_of_starts([]) == []


def test_the_floor_of_the_hippocampus_is_the_most_frequent_label_around_the_centre():
    small_map, large_map = np.zeros((4, 4, 4), np.uint8), np.zeros((6, 6, 6), np.uint8)
    small_map[1:3, 1:3, 1:3], large_map[2:4, 2:4, 2:4] = 1, 1
    odd = np.full((4, 4, 4), 2, np.uint8)
    atlas = hippocampus.most_frequent([small_map, large_map, odd])
    np.testing.assert_array_equal(atlas, large_map)
    np.testing.assert_array_equal(hippocampus.centred(atlas, (4, 4, 4)), small_map)


def test_means_of_the_hippocampus_are_of_scans_then_of_labels_and_count_what_has_no_value():
    def of(anterior, posterior):
        return {
            name: {"dice": dice, "hd95": None if dice == 0 else 2.0, "nsd": dice}
            for name, dice in (("anterior", anterior), ("posterior", posterior))
        }

    found = hippocampus.summary({"a": of(0.8, 0.6), "b": of(0.9, 0.7), "c": of(0.0, 0.8)})
    assert found["anterior"]["dice"]["mean"] == pytest.approx(1.7 / 3)
    assert found["mean"]["dice"]["mean"] == pytest.approx((0.7 + 0.8 + 0.4) / 3)
    assert found["anterior"]["hd95"]["failed"] == found["mean"]["hd95"]["failed"] == 1
    assert found["anterior"]["hd95"]["penalised"] is None  # rows that do not know their field of view
    assert found["posterior"]["hd95"]["penalised"] == 2.0 and found["mean"]["dice"]["failed"] == 0
    low, high = found["mean"]["dice"]["interval"]
    assert 0.39 < low < found["mean"]["dice"]["mean"] < high < 0.81
    rows = hippocampus.table({"network": found, "floor": found}).splitlines()
    assert len(rows) == 8 and rows[2].startswith("| network | anterior | 0.567 (")


def test_transfer_reports_what_pretraining_adds(tmp_path, capsys):
    """Of two seeds and three scans: the gain is paired by scan and seed."""
    data, workdir = tmp_path / "data", tmp_path / "run"
    (workdir / "mae").mkdir(parents=True)
    data.mkdir()
    (data / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"], "test": ["c", "d", "e"]}))
    (workdir / "mae.json").write_text(json.dumps({"cpu_seconds": 60.0, "steps": 6}))
    (workdir / "mae" / "starts.jsonl").write_text(
        json.dumps({"ukbob_jax": "0", "python": "3", "machine": "x", "devices": "1 CPU"}) + "\n"
    )
    probes = [
        {"step": step, "probe/knn": 0.5, "probe/linear": 0.6 + step / 100, "probe/chance": 1 / 3}
        for step in (0, 6)
    ]
    (workdir / "mae" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in probes))
    for arm, above in (("scratch", 0.0), ("mae", 0.1)):
        (workdir / f"rate_{arm}.json").write_text(json.dumps({"rate": 1e-3, "val": {}}))
        for seed, base in ((0, 0.5), (1, 0.6)):
            found = {
                "dice": [base + above, base, base + 2 * above],
                "labels": [0.5, 0.5],
                "cpu_seconds": 30.0,
            }
            (workdir / f"test_{arm}_6_{seed}.json").write_text(json.dumps(found))
    words = [
        "--data",
        data,
        "--workdir",
        workdir,
        "--output",
        tmp_path,
        "--methods",
        "mae",
        "--labelled",
        6,
        "--seeds",
        0,
        1,
    ]
    transfer.main([*map(str, words), "--report"])
    result = json.loads((tmp_path / "transfer.json").read_text())
    of = result["arms"]["mae"]["labelled"]["6"]
    assert of["dice"] == pytest.approx(0.65) and of["gain"] == pytest.approx(0.1)
    assert of["gain_of_seed"] == pytest.approx([0.1, 0.1]) and of["gain_interval"][0] == pytest.approx(
        0, abs=1e-12
    )
    assert result["cpu_minutes"] == {"pretraining": 1.0, "fine-tuning": 2.0}
    assert "| mae | 0.650 (+0.100, +0.000 to +0.200; 2 of 2) |" in capsys.readouterr().out
    for name in ("transfer.png", "probes.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_grades_of_eroded_and_dilated_masks_are_summed_up_per_step():
    rows = [
        {"organ": organ, "way": "erosion", "step": step, "grade": grade, "dice": 1 - 0.1 * step}
        for organ, grades in {1: (0.9, 0.7, 0.4), 2: (0.8, 0.5, 0.6)}.items()
        for step, grade in enumerate(grades)
    ]
    found = monotone.summary(rows, 2)
    assert found["grade"] == pytest.approx([0.85, 0.6, 0.5]) and found["dice"] == pytest.approx([1, 0.9, 0.8])
    assert found["organs"] == 2 and found["falling"] == 0.5
    assert monotone.draw({"erosion": found, "dilation": found})[:4] == b"\x89PNG"
    mask = np.zeros((7, 7, 7), bool)
    mask[3, 3, 3] = True
    assert (
        monotone.changed(mask, "dilation", 2).sum() == 25 and not monotone.changed(mask, "erosion", 1).any()
    )
    assert monotone.changed(mask, "erosion", 0) is mask
