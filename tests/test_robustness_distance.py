"""Radiomic distance beside the loss of Dice: what is measured, resumed, put beside each other and drawn."""

import csv
import json

import numpy as np
import pytest

from experiments.robustness import distance
from experiments.robustness.corruptions import corrupt
from tests import tiny_sentinel
from ukbob_jax import radiomics
from ukbob_jax.store.reader import Store

SUBJECTS = ("p1", "p2", "p3")


def scored(subject, corruption="none", severity=0, dice=0.9, **changes):
    row = {"network": "instance_affine", "phase": "test", "method": "off", "subject": subject}
    return {**row, "corruption": corruption, "severity": severity, "dice": dice, **changes}


@pytest.fixture
def store(tmp_path):
    tiny_sentinel.write_store(tmp_path / "store", subjects=1, held_out=3, shape=(24, 20, 32))
    return tmp_path / "store"


def test_distances_stand_beside_the_dice_of_the_same_scans(store, tmp_path, capsys, monkeypatch):
    out, drawn = tmp_path / "out", []
    render = distance.figures.render
    monkeypatch.setattr(distance.figures, "render", lambda figure: drawn.append(figure) or render(figure))
    words = [
        "--store", str(store), "--output", str(out), "--split", "val", "--version", "v0",
        "--corruptions", "rician_noise", "gibbs", "--severities", "1", "3", "5",
    ]  # fmt: skip
    out.mkdir()
    lost = {1: 0.01, 3: 0.1, 5: 0.4}
    rows = [scored(s) for s in (*SUBJECTS, "other")]
    rows += [
        scored(s, "rician_noise", severity, 0.9 - loss) for s in SUBJECTS for severity, loss in lost.items()
    ]
    rows += [scored("other", "rician_noise", 5, 0.0), scored("p1", "rician_noise", 5, 0.0, method="etta")]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    distance.main(words)
    table = list(csv.DictReader((out / "distance_v0.csv").read_text().splitlines()))
    assert [(r["corruption"], r["severity"], r["scans"]) for r in table] == [
        (name, severity, "3") for name in ("rician_noise", "gibbs") for severity in "135"
    ]
    assert [float(r["dice_loss"]) for r in table[:3]] == pytest.approx(list(lost.values()))
    assert [r["dice_loss"] for r in table[3:]] == [""] * 3

    opened, tables = Store.open(store), []
    for severity in (0, 5):
        own = []
        for subject in SUBJECTS:
            image, labels = opened.read(subject, "image"), opened.read(subject, "label/manual")
            if severity:
                image, labels = corrupt(
                    image, labels, "rician_noise", severity, int.from_bytes(subject.encode())
                )
            channel = opened.rows[subject].contrasts.index("water")
            spacing = opened.rows[subject].spacing_mm
            found = radiomics.frd_vector(image[..., channel], labels > 0, spacing, version="v0")
            own.append(list(found.values()))
        tables.append(np.array(own))
    assert float(table[2]["frd"]) == pytest.approx(radiomics.frd(*tables, version="v0"))

    told = capsys.readouterr()
    assert "over 3 sets" in told.out and "gibbs" not in told.out
    [axes] = drawn[-1].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "rician_noise"
    ]  # gibbs has no Dice

    lines = (out / "distance_rows.jsonl").read_text()
    (out / "rows.jsonl").unlink()
    distance.main(words)  # nothing is measured again; without Dice, all distances
    assert (out / "distance_rows.jsonl").read_text() == lines and len(lines.splitlines()) == 3 * 7
    told = capsys.readouterr()
    assert "fewer than three have a Dice" in told.out and not told.err
    [axes] = drawn[-1].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["rician_noise", "gibbs"]
