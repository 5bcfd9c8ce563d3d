import csv
import json

import numpy as np
import pytest

from configs import common
from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.evaluation import agreement as tables
from ukbob_jax.jobs import agreement
from ukbob_jax.quality import grades, verdicts
from ukbob_jax.quality.grades import Grade
from ukbob_jax.store.writer import StoreWriter

SHAPE, AFFINE = (16, 14, 12), np.diag([2.0, 2.0, 3.0, 1.0])
LIVER, SPLEEN, HEART = (anatomy.IDS[name] for name in ("liver", "spleen", "heart"))


def manual() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:8, 2:10, 2:10], labels[10:14, 2:10, 2:10], labels[:2, :2, :2] = LIVER, SPLEEN, HEART
    return labels


@pytest.fixture
def config(tmp_path):
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(4):
            auto = manual()
            if number == 1:
                auto[5:8] = 0  # half the liver
            if number == 2:
                auto[auto == SPLEEN] = 0
            writer.write(
                f"s{number}",
                np.ones((*SHAPE, 1), np.int16),
                AFFINE,
                {"auto": auto, "manual": manual()},
                source="",
            )
        writer.write("s9", np.ones((*SHAPE, 1), np.int16), AFFINE, {"auto": manual()}, source="")
    path = verdicts.folder(tmp_path / "store", "auto") / verdicts.VERDICTS
    files.write_jsonl(path, [{"subject": "s1", "organ": LIVER, "flagged": True}])
    made = common.base()
    made.store = str(tmp_path / "store")
    return made.copy_and_resolve_references()


def test_the_table_has_every_organ_before_and_after(config, tmp_path, capsys):
    agreement.run(config, str(tmp_path))
    found = json.loads((tmp_path / "agreement" / "auto_manual.json").read_text())
    assert found["subjects"] == 4 and len(found["table"]) == 12
    rows = {row["organ"]: row for row in found["table"]}
    half = 2 * 3 / (3 + 6)  # Dice of half a box with the whole
    liver, spleen = rows["liver"], rows["spleen"]
    assert (liver["labels"], liver["kept"], liver["lost"]) == (4, 3, 0)
    np.testing.assert_allclose([liver["dice_before"], liver["dice_after"]], [(3 + half) / 4, 1])
    assert (
        liver["hd95_before"] == pytest.approx(6.0 / 4) and liver["hd95_after"] == 0
    )  # three voxels of 2 mm in one of four
    assert (spleen["labels"], spleen["lost"], spleen["dice_after"], spleen["hd95_after"]) == (4, 1, 0.75, 0)
    assert rows["pancreas"]["labels"] == 0 and rows["pancreas"]["dice_before"] is None
    np.testing.assert_allclose(rows["mean of organs"]["dice_before"], ((3 + half) / 4 + 0.75) / 2)
    with open(tmp_path / "agreement" / "auto_manual.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["organ"] for row in table] == list(rows) and float(table[4]["dice_after"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:3] == ["organ", "labels", "kept"] and len(printed) == 13


def test_the_filter_may_be_that_of_grades(config, tmp_path, capsys):
    config.data.flagged_by = "either"
    grades.write(config.store, "auto", [("s2", LIVER, Grade(0.2, flagged=True))])
    agreement.run(config, str(tmp_path))
    found = json.loads((tmp_path / "agreement" / "auto_manual.json").read_text())
    assert next(row for row in found["table"] if row["organ"] == "liver")["kept"] == 2


def test_what_is_known_is_not_compared_again(config, tmp_path, monkeypatch):
    agreement.run(config, str(tmp_path))
    before = (tmp_path / "agreement" / "auto_manual.json").read_bytes()
    monkeypatch.setattr(tables.metrics, "surface", None)  # would fail
    agreement.run(config, str(tmp_path))
    assert (tmp_path / "agreement" / "auto_manual.json").read_bytes() == before


def test_labels_or_settings_that_change_are_compared_again(config, tmp_path):
    def liver():
        agreement.run(config, str(tmp_path))
        found = json.loads((tmp_path / "agreement" / "auto_manual.json").read_text())
        return next(row for row in found["table"] if row["organ"] == "liver")

    before = liver()
    config.agreement.tolerance_mm = 100.0
    loose = liver()
    assert loose != before
    with StoreWriter(config.store) as writer:  # made anew under the same name, source and version
        writer.drop("s1")
        image = np.ones((*SHAPE, 1), np.int16)
        writer.write("s1", image, AFFINE, {"auto": manual(), "manual": manual()}, source="")
    assert liver()["dice_before"] == 1 > loose["dice_before"]


def test_ignored_voxels_and_other_organs_take_no_part():
    auto, truth = manual(), manual()
    truth[truth == SPLEEN] = anatomy.IGNORE
    auto[auto == HEART] = 70
    [row] = tables.score(auto, truth, (2.0, 2.0, 3.0), tables.organs("abdomen"), 1.0)
    assert (row["organ"], row["dice"], row["nsd"]) == (LIVER, 1.0, 1.0)


def test_subsets_are_known_structures():
    assert len(tables.ABDOMEN) == 11 and len(tables.organs("all")) == 71
    assert len(tables.organs("btcv")) == 13 and set(tables.ABDOMEN) < set(tables.SUBSETS["btcv"])
    with pytest.raises(ConfigError, match="'thorax' is not known"):
        tables.organs("thorax")


def test_refuses_a_store_it_cannot_compare(config, tmp_path):
    config.agreement.manual = "none"
    with pytest.raises(ConfigError, match="both label sets 'auto' and 'none'"):
        agreement.run(config, str(tmp_path))
    config.agreement.auto = "other"
    with pytest.raises(FileError, match="no verdicts on label set 'other'"):
        agreement.run(config, str(tmp_path))
