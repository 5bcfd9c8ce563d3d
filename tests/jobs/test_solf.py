import json

import ml_collections
import numpy as np
import pytest

from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.jobs import solf
from ukbob_jax.quality import Limits, flag, measure, verdicts
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

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
                quality={"planted": planted},
            )  # fmt: skip
    return Store.open(tmp_path / "store")


def config(store: Store, **solf_fields) -> ml_collections.ConfigDict:
    fields = {"epsilon": 7.0, "min_outside": 2, "min_voxels": 0, "rule": "percentile"} | solf_fields
    return ml_collections.ConfigDict({"store": store.path, "label": "auto", "solf": fields})


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
    monkeypatch.setattr(solf, "measure", lambda *args: measured.append(1) or measure(*args))
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
