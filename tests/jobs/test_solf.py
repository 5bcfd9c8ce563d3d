import json

import jax
import ml_collections
import numpy as np
import pytest

from configs import common
from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, FileError, MismatchError, SomeFailed
from ukbob_jax.jobs import audit, check_labels, solf
from ukbob_jax.quality import Limits, cohort, flag, measure, verdicts
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume

pytestmark = pytest.mark.usefixtures("full_optimization")  # counting voxels takes longer than compiling
SHAPE, AFFINE = (24, 20, 28), np.diag([2.0, 2.0, 3.0, 1.0])
BAD = {"s03": 5, "s11": 24}  # subject: organ that is a third of a plate instead of an ellipsoid
LIVER, SPLEEN, HEART = 5, 1, 24


def label_map(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    grid = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for organ, centre in ((LIVER, (7, 10, 7)), (SPLEEN, (17, 10, 7)), (HEART, (12, 10, 20))):
        radii = np.array([4.5, 6, 5]) * rng.uniform(0.85, 1.15, 3)
        distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii))
        labels[distance <= 1] = organ
    organ = BAD.get(f"s{number:02d}")
    if organ:
        plate = labels == organ
        plate[:, :10] = False
        plate[:, 11:] = False
        labels[labels == organ] = 0
        labels[plate] = organ
    if number == 7:
        labels[labels == SPLEEN] = 0
    return labels


@pytest.fixture
def store(tmp_path) -> Store:
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(16):
            name = f"s{number:02d}"
            planted = [{"organ": BAD[name], "kind": "missing_part"}] if name in BAD else []
            writer.write(
                name, np.ones((*SHAPE, 1), np.int16), AFFINE, {"auto": label_map(number)}, source=str(number),
                quality={"planted": planted}, attributes={"sex": "FM"[number % 2], "height_mm": 1700.0},
            )  # fmt: skip
    return Store.open(tmp_path / "store")


def config(store: Store, **solf_fields) -> ml_collections.ConfigDict:
    made = common.base()
    made.store = store.path
    made.solf.update({"epsilon": 7.0, "min_voxels": 0} | solf_fields)
    return made.copy_and_resolve_references()


def test_finds_the_broken_organs_and_writes_what_it_found(store, tmp_path):
    solf.run(config(store), str(tmp_path))
    flagged = verdicts.flagged_organs(store.path, "auto")
    assert all(organ in flagged[name] for name, organ in BAD.items())
    folder = verdicts.folder(store.path, "auto")
    rows = files.read_jsonl(folder / "solf.jsonl")
    assert len(rows) == 16 * 3 - 1  # the missing spleen has no row
    row = next(row for row in rows if (row["subject"], row["organ"]) == ("s03", LIVER))
    expected = measure(store.read("s03", "label/auto"), (2.0, 2.0, 3.0))
    assert row["flagged"] and set(row["outside"]) >= {"body_fraction", "sphericity"}
    np.testing.assert_allclose(row["sphericity"], expected.sphericity[LIVER])
    assert files.read_jsonl(folder / "missing.jsonl") == [{"subject": "s07", "organs": [SPLEEN]}]


def test_limits_judge_one_scan_alone(store, tmp_path):
    solf.run(config(store), str(tmp_path))
    limits = Limits.load(verdicts.folder(store.path, "auto") / "limits.json")
    for name in ("s03", "s04"):
        verdict = flag(measure(store.read(name, "label/auto"), (2.0, 2.0, 3.0)), limits)
        assert set(np.flatnonzero(verdict[1:]) + 1) == verdicts.flagged_organs(store.path, "auto").get(
            name, set()
        )
    assert limits.provenance["label"] == "auto" and limits.provenance["subjects"] == 16


def test_planted_errors_are_scored_at_every_setting(store, tmp_path):
    solf.run(config(store, rule="robust"), str(tmp_path))
    found = json.loads((verdicts.folder(store.path, "auto") / "precision_recall.json").read_text())
    assert (found["planted"], found["kinds"], found["chosen"]["rule"]["name"]) == (
        2,
        ["missing_part"],
        "robust",
    )
    strict, loose = found["rows"][0], [row for row in found["rows"] if row["rule"] == "percentile"][-1]
    assert (strict["rule"], strict["setting"], loose["setting"]) == ("percentile", 0.25, 20.0)
    assert loose["recall"] == 1 and loose["recall_by_kind"] == {"missing_part": 1.0}
    assert loose["precision"] == 2 / loose["flagged"]
    assert found["chosen"]["recall"] == 1


def test_a_second_run_measures_only_what_changed(store, tmp_path, monkeypatch):
    solf.run(config(store), str(tmp_path))
    before = (verdicts.folder(store.path, "auto") / "solf.jsonl").read_bytes()
    with StoreWriter(store.path) as writer:
        writer.write_label("s05", "auto", label_map(6))
    measured = []
    counted = lambda *args, **named: measured.append(1) or measure(*args, **named)  # noqa: E731
    monkeypatch.setattr(cohort, "measure", counted)
    solf.run(config(store), str(tmp_path))
    assert len(measured) == 1
    assert (verdicts.folder(store.path, "auto") / "solf.jsonl").read_bytes() != before


def test_a_damaged_label_map_is_told_and_the_rest_is_judged(store, tmp_path):
    folder = next((tmp_path / "store" / "subjects" / "s05").glob("*/label/auto"))
    chunk = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(SomeFailed, match="1 of 16"):
        solf.run(config(store), str(tmp_path))
    assert files.read_jsonl(tmp_path / "failures.jsonl")[0]["subject"] == "s05"
    assert "s03" in verdicts.flagged_organs(store.path, "auto")


def test_refuses_a_label_set_or_rule_there_is_not(store, tmp_path):
    wrong = config(store)
    wrong.label = "none"
    with pytest.raises(ConfigError, match="no subject has a label set 'none'"):
        solf.run(wrong, str(tmp_path))
    with pytest.raises(ConfigError, match="percentile, robust"):
        solf.run(config(store, rule="magic"), str(tmp_path))
    with pytest.raises(FileError, match=r"Run --config\.job=solf"):
        verdicts.flagged_organs(store.path, "auto")


def test_background_is_never_listed(store, tmp_path):
    solf.run(config(store, epsilon=40.0), str(tmp_path))
    flagged = verdicts.flagged_organs(store.path, "auto")
    assert flagged and all(organs <= set(anatomy.NAMES) - {0} for organs in flagged.values())


def test_another_label_set_of_a_subject_measures_nothing_anew(store, tmp_path, monkeypatch):
    solf.run(config(store), str(tmp_path))
    with StoreWriter(store.path) as writer:
        writer.write_label("s05", "other", label_map(6))
    monkeypatch.setattr(cohort, "measure", None)  # would fail
    solf.run(config(store), str(tmp_path))


def test_shares_of_the_cohort_are_judged_by_a_last_run(store, tmp_path, monkeypatch):
    for process in range(3):
        solf.run(config(store, process=process, processes=3), str(tmp_path))
    folder = verdicts.folder(store.path, "auto")
    assert not (folder / "solf.jsonl").exists()
    monkeypatch.setattr(cohort, "measure", None)
    solf.run(config(store), str(tmp_path))
    rows = (folder / "solf.jsonl").read_bytes()
    monkeypatch.undo()
    for path in folder.glob("measures*"):
        path.unlink()
    solf.run(config(store), str(tmp_path))
    assert (folder / "solf.jsonl").read_bytes() == rows


def test_work_goes_to_every_device_in_turn(store, tmp_path, monkeypatch):
    used = set()
    monkeypatch.setattr(cohort, "devices_to_use", lambda: jax.local_devices()[:2])
    seen = lambda *a, **named: used.add(jax.config.jax_default_device) or measure(*a, **named)  # noqa: E731
    monkeypatch.setattr(cohort, "measure", seen)
    solf.run(config(store), str(tmp_path))
    assert used == set(jax.local_devices()[:2])


def test_decisions_overrule_and_end_with_the_label_map(store, tmp_path):
    solf.run(config(store), str(tmp_path))
    made = [("s03", LIVER, "keep"), ("s04", HEART, "fix"), ("s06", LIVER, "drop")]
    rows = [dict(zip(("subject", "organ", "decision"), row), version="0001") for row in made]
    path = tmp_path / "decisions.json"
    files.write_json(path, {"format": "ukbob-decisions", "label": "auto", "decisions": rows})
    solf.run(config(store, decisions=str(path)), str(tmp_path))
    flagged = verdicts.flagged_organs(store.path, "auto")
    assert LIVER not in flagged.get("s03", set()) and HEART in flagged["s04"] and LIVER in flagged["s06"]
    folder = verdicts.folder(store.path, "auto")
    assert files.read_jsonl(folder / "fix.jsonl") == [{"subject": "s04", "organ": HEART}]
    decided = [row["decision"] for row in files.read_jsonl(folder / "solf.jsonl") if "decision" in row]
    assert decided == ["keep", "fix", "drop"]
    with StoreWriter(store.path) as writer:
        writer.write_label("s04", "auto", label_map(4))  # corrected
    solf.run(config(store, decisions=str(path)), str(tmp_path))
    assert HEART not in verdicts.flagged_organs(store.path, "auto").get("s04", set())


def test_a_structure_too_small_to_judge_can_still_be_dropped(store, tmp_path):
    rows = [{"subject": "s04", "organ": HEART, "decision": "drop"}]
    path = tmp_path / "decisions.json"
    files.write_json(path, {"format": "ukbob-decisions", "label": "auto", "decisions": rows})
    solf.run(config(store, min_voxels=10_000, decisions=str(path)), str(tmp_path))
    assert verdicts.flagged_organs(store.path, "auto") == {"s04": {HEART}}
    assert len(files.read_jsonl(verdicts.folder(store.path, "auto") / "solf.jsonl")) == 1


def test_strata_have_limits_of_their_own_and_missing_prostates_of_women_are_no_news(store, tmp_path):
    with StoreWriter(store.path) as writer:
        for number in range(0, 16):
            labels = label_map(number)
            if number % 2:
                labels[:2, :2, :2] = anatomy.IDS["prostate"]
            elif number < 14:
                labels[:2, :2, :2] = anatomy.IDS["sternum"]
            writer.write_label(f"s{number:02d}", "auto", labels)
    solf.run(config(store, strata=("sex", "height"), min_count=4), str(tmp_path))
    folder = verdicts.folder(store.path, "auto")
    limits = Limits.load(folder / "limits.json")
    assert limits.groups == ("F 1700-1800 mm", "M 1700-1800 mm")
    assert limits.count[:, anatomy.IDS["prostate"]].tolist() == [0, 8]
    told = {row["subject"]: row["organs"] for row in files.read_jsonl(folder / "missing.jsonl")}
    assert told == {"s07": [SPLEEN], "s14": [anatomy.IDS["sternum"]]}


def test_a_store_is_judged_by_limits_of_another(store, tmp_path):
    solf.run(config(store), str(tmp_path))
    folder = verdicts.folder(store.path, "auto")
    limits, rows = tmp_path / "limits.json", (folder / "solf.jsonl").read_bytes()
    (folder / "limits.json").rename(limits)
    solf.run(config(store, limits=str(limits), epsilon=40.0), str(tmp_path))
    assert (folder / "solf.jsonl").read_bytes() == rows
    assert (folder / "limits.json").read_bytes() == limits.read_bytes()


def test_a_subject_of_a_group_without_limits_does_not_stop_the_others(store, tmp_path, capsys):
    solf.run(config(store, strata=("sex",), min_count=4, epsilon=20.0), str(tmp_path))
    folder = verdicts.folder(store.path, "auto")
    limits, flagged = tmp_path / "limits.json", verdicts.flagged_organs(store.path, "auto")
    (folder / "limits.json").rename(limits)
    with StoreWriter(store.path) as writer:  # s03, whose liver is broken, has lost its sex
        image, labels = np.ones((*SHAPE, 1), np.int16), {"auto": label_map(3)}
        writer.write("s03", image, AFFINE, labels, source="again", attributes={})
    decision = {"subject": "s03", "organ": HEART, "decision": "drop"}
    path = tmp_path / "decisions.json"
    files.write_json(path, {"format": "ukbob-decisions", "label": "auto", "decisions": [decision]})
    made = config(store, limits=str(limits), decisions=str(path))
    solf.run(made, str(tmp_path))
    assert "1 of 16 subjects are not judged" in capsys.readouterr().err
    assert flagged.pop("s03") >= {LIVER}
    assert verdicts.flagged_organs(store.path, "auto") == flagged | {"s03": {HEART}}
    assert Limits.load(folder / "limits.json").groups == ("F", "M", "unknown")
    audit.run(made, str(tmp_path))  # its page knows the group too


def test_one_file_is_judged_without_the_store(store, tmp_path, capsys):
    solf.run(config(store, strata=("sex",), min_count=4, epsilon=20.0), str(tmp_path))
    path = tmp_path / "scan.nii.gz"
    flipped = Volume(store.read("s03", "label/auto")[::-1], AFFINE @ np.diag([-1.0, 1, 1, 1]))
    write_volume(path, flipped)  # another orientation of the same voxels
    made = config(store)
    made.check_labels.update(
        inputs=str(path), limits=str(verdicts.folder(store.path, "auto") / "limits.json")
    )
    made.check_labels.sex = "M"
    check_labels.run(made, str(tmp_path))
    rows = files.read_jsonl(tmp_path / "check_labels" / "scan.jsonl")
    cohort_rows = files.read_jsonl(verdicts.folder(store.path, "auto") / "solf.jsonl")
    expected = [row | {"subject": "scan"} for row in cohort_rows if row["subject"] == "s03"]
    for row, same in zip(rows, expected, strict=True):
        assert {k: row[k] for k in ("organ", "outside", "flagged")} == {
            k: same[k] for k in ("organ", "outside", "flagged")
        }
        assert row["sphericity"] == pytest.approx(same["sphericity"], rel=1e-12)
    assert "scan: " in capsys.readouterr().out
    made.check_labels.sex = ""
    with pytest.raises(MismatchError, match="'unknown'"):
        check_labels.run(made, str(tmp_path))
    with pytest.raises(ConfigError, match=r"check_labels\.limits"):
        check_labels.run(config(store), str(tmp_path))


def test_seam_contact_is_in_the_rows(store, tmp_path):
    with StoreWriter(store.path) as writer:
        for name in store.subjects:
            station = np.zeros(SHAPE, np.uint8) + (np.arange(SHAPE[2]) >= 20).astype(np.uint8)
            writer.write_label(name, "station", station)
    solf.run(config(store, stations="station"), str(tmp_path))
    rows = files.read_jsonl(verdicts.folder(store.path, "auto") / "solf.jsonl")
    contact = {(row["subject"], row["organ"]): row.get("seam_contact", 0) for row in rows}
    assert contact["s00", HEART] > 0.1 and contact["s00", LIVER] == 0


def test_body_mask_is_the_body_where_every_subject_has_one(store, tmp_path):
    body = np.zeros(SHAPE, np.uint8)
    body[1:-1, 1:-1, 1:-1] = 1
    with StoreWriter(store.path) as writer:
        for name in store.subjects[1:]:
            writer.write_label(name, "body", body)
    limits_path = verdicts.folder(store.path, "auto") / "limits.json"
    solf.run(config(store), str(tmp_path))
    assert Limits.load(limits_path).provenance["body"] == "union of labels"  # s00 has none: one kind for all
    with StoreWriter(store.path) as writer:
        writer.write_label(store.subjects[0], "body", body)
    solf.run(config(store), str(tmp_path))
    limits = Limits.load(limits_path)
    assert limits.provenance["body"] == "label set body"
    fractions = [(store.read(name, "label/auto") == LIVER).sum() / body.sum() for name in store.subjects]
    assert limits.low[0, LIVER, 0] == pytest.approx(np.percentile(fractions, 7.0), rel=0.1)
    assert (
        min(fractions) * 0.99 <= limits.low[0, LIVER, 0] <= limits.high[0, LIVER, 0] <= max(fractions) * 1.01
    )
    with pytest.raises(MismatchError, match=r"label set body, here it is the union of labels.*solf\.body="):
        solf.run(config(store, body="", limits=str(limits_path)), str(tmp_path))
    made = config(store)
    made.check_labels.inputs, made.check_labels.limits = "scan.nii.gz", str(limits_path)
    with pytest.raises(MismatchError, match="union of labels"):
        check_labels.run(made, str(tmp_path))
