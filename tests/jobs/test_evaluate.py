"""Scores of a network whose answer is known, on a store with our ids and on one with another data set's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from tests.inference.networks import META, Bands, scan
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import evaluate
from ukbob_jax.store.writer import StoreWriter


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    model = Bands()
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    meta = {**META, "provenance": {}}
    monkeypatch.setattr(Segmenter, "load", lambda workdir, **_: Segmenter(model, params, meta))
    return tmp_path


def recipe(workdir, liver, spleen, annotated=None, **changes):
    """Two scans, of a woman and a man, whose true labels are the bands; the man's are half missing."""
    store = workdir / f"store_{liver}"
    with StoreWriter(store) as writer:
        for seed, sex in enumerate("FM"):
            image = scan(seed=seed).array
            label = np.select([image < 30, image < 60], [0, liver], spleen).astype(np.uint8)
            label[: 5 * seed] = 0
            writer.write(
                f"s{seed}", image[..., None], np.diag([2.0, 2, 2, 1]), {"manual": label}, source=str(seed),
                split="test", contrasts=("water",), attributes={"sex": sex}, annotated=annotated,
            )  # fmt: skip
    config = common.base().copy_and_resolve_references()
    config.unlock()
    config.store, config.evaluate.groups, config.evaluate.tolerance_mm = str(store), "sex", 3.0
    for name, value in changes.items():
        with config.evaluate.ignore_type():
            config.evaluate[name] = value
    return config


def summary(workdir):
    return json.loads((workdir / "evaluation" / "test.summary.json").read_text())


def test_zero_shot_on_another_data_set_scores_as_on_ours(workdir):
    methods = ("off", "etta", "tent", "tta")
    evaluate.run(recipe(workdir, 1, 3, methods=methods, label_map=""), str(workdir))
    ours = summary(workdir)
    assert set(ours) == set(methods)
    evaluate.run(
        recipe(workdir, 6, 1, methods=methods, label_map="btcv"), str(workdir)
    )  # liver 6, spleen 1 there
    assert summary(workdir) == ours | {
        method: {**found, "mean": pytest.approx(found["mean"])} for method, found in ours.items()
    }
    off = ours["off"]
    assert off["equity"]["groups"]["F"] == 1 > off["equity"]["groups"]["M"] and off["undefined"] == 0
    assert off["mean"]["sensitivity"] == 1 > off["mean"]["iou"] and off["dice_interval"][1] == 1
    assert ours["etta"]["against_off"]["count"] == 2


def test_organs_that_nobody_looked_for_are_not_scored(workdir):
    evaluate.run(recipe(workdir, 1, 3, annotated=[1], label_map=""), str(workdir))
    rows = [json.loads(line) for line in (workdir / "evaluation" / "test.jsonl").read_text().splitlines()]
    assert {row["organ"] for row in rows if row["dice"] is not None} == {"liver"}
    assert any(row["organ"] == "spleen" for row in rows)


def test_wrong_label_sets_and_methods_are_named(workdir):
    with pytest.raises(ValueError, match="'flare' is not known"):
        evaluate.run(recipe(workdir, 1, 3, label_map="flare"), str(workdir))
    with pytest.raises(
        ValueError, match=r"config\.evaluate\.methods: method 'magic' is not one of off, etta, tent, bn, tta"
    ):
        evaluate.run(recipe(workdir, 2, 3, methods=("magic",)), str(workdir))
