"""Scores of a network whose answer is known, on a store with our ids and on one with another data set's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import common
from tests.inference import checkpoint
from tests.inference.networks import CARD, Bands, scan
from ukbob_jax.evaluation import metrics
from ukbob_jax.inference.options import from_config
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import evaluate
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.volumes.nifti import read_volume

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    model = Bands()
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    monkeypatch.setattr(Segmenter, "load", lambda workdir, **_: Segmenter(model, params, CARD))
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
    [sex] = off["people"]
    assert sex["worst_group"] == "M" and sex["overall"] == pytest.approx(off["dice"])
    assert off["organs"]["liver"]["dice"]["count"] == 2 and off["organs"]["liver"]["dice"]["high"] == 1
    assert ours["etta"]["organs_against_off"]["liver"]["p_holm"] == 1


def test_what_was_scored_and_its_cost_is_kept_beside_the_scores(workdir):
    config = recipe(workdir, 1, 3, methods=("off",), surface=False)
    evaluate.run(config, str(workdir))
    about = json.loads((workdir / "evaluation" / "test.run.json").read_text())
    assert (about["store"], about["label"], about["split"]) == (config.store, "manual", "test")
    off = about["methods"]["off"]
    assert about["parameters"] > 0 and off["timed"] == 1 and off["seconds_per_scan"] > 0  # the first compiled
    assert off["peak_bytes"] > off["estimated_bytes"] > 0
    config.evaluate.age_band_years = 5.0
    evaluate.run(config, str(workdir))  # nothing is predicted again
    assert json.loads((workdir / "evaluation" / "test.run.json").read_text()) == about


def test_organs_that_nobody_looked_for_are_not_scored(workdir):
    evaluate.run(recipe(workdir, 1, 3, annotated=[1], label_map=""), str(workdir))
    rows = [json.loads(line) for line in (workdir / "evaluation" / "test.jsonl").read_text().splitlines()]
    assert {row["organ"] for row in rows if row["dice"] is not None} == {"liver"}
    assert any(row["organ"] == "spleen" for row in rows)


def test_lesions_are_counted_where_the_recipe_asks(workdir):
    def rows(**changes):
        evaluate.run(recipe(workdir, 1, 3, methods=("off",), **changes), str(workdir))
        return [json.loads(line) for line in (workdir / "evaluation" / "test.jsonl").read_text().splitlines()]

    plain, more = rows(), rows(lesions=True)
    assert all(row.items() <= extended.items() for row, extended in zip(plain, more, strict=True))
    added = {name for row in more for name in row} - {name for row in plain for name in row}
    assert added == {f"lesion_{name}" for name in metrics.Lesions._fields}
    livers = {row["subject"]: row for row in more if row["organ"] == "liver"}
    assert livers["s0"]["lesion_sensitivity"] == 1 and summary(workdir)["off"]["mean"]["lesion_dice"] <= 1


def counted(monkeypatch):
    """A list that grows with every prediction."""
    calls, predict = [], Segmenter.predict
    monkeypatch.setattr(
        Segmenter, "predict", lambda *args, **options: calls.append(1) or predict(*args, **options)
    )
    return calls


def test_a_network_that_was_trained_further_is_scored_again_and_the_same_one_is_not(tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    config = recipe(tmp_path, 1, 3, methods=("off",), surface=False)
    checkpoint.save(tmp_path, CARD.labels, step=1, favoured=0)
    evaluate.run(config, str(tmp_path))
    before = summary(tmp_path)
    assert len(calls) == 2 and before["off"]["mean"]["dice"] == 0
    evaluate.run(config, str(tmp_path))
    assert len(calls) == 2 and summary(tmp_path) == before
    checkpoint.save(tmp_path, CARD.labels, step=2, favoured=1)  # under the same provenance
    evaluate.run(config, str(tmp_path))
    assert len(calls) == 4 and summary(tmp_path)["off"]["mean"]["dice"] > 0.1


def test_scores_are_kept_until_something_that_moves_them_changes(workdir, monkeypatch):
    calls = counted(monkeypatch)

    def runs(config):
        before = len(calls)
        evaluate.run(config, str(workdir))
        return len(calls) - before

    config = recipe(workdir, 1, 3, methods=("off",))
    assert runs(config) == 2
    config.train.steps, config.predict.existing, config.workers = 7, "skip", 3  # of other jobs
    assert runs(config) == 0
    config.inference.overlap = 0.25
    assert runs(config) == 2
    config.something_new = 1  # that nobody has listed yet
    assert runs(config) == 2
    store = Store.open(config.store)
    with StoreWriter(config.store) as writer:
        writer.write_label("s0", "auto", store.read("s0", "label/manual"))  # not what is compared with
    assert runs(config) == 0
    with StoreWriter(config.store) as writer:
        writer.write_label("s0", "manual", np.zeros(store.rows["s0"].shape, np.uint8))
    assert runs(config) == 1
    with StoreWriter(
        config.store
    ) as writer:  # the store made anew, with the same names, sources and versions
        image, affine = store.read("s1", "image"), np.asarray(store.rows["s1"].affine)
        writer.drop("s1")
        writer.write(
            "s1", image, affine, {"manual": np.zeros(image.shape[:3], np.uint8)}, source="1", split="test",
            contrasts=("water",), attributes={"sex": "M"},
        )  # fmt: skip
    assert runs(config) == 1


def test_wrong_label_sets_and_methods_are_named(workdir):
    with pytest.raises(ValueError, match="'flare' is not known"):
        evaluate.run(recipe(workdir, 1, 3, label_map="flare"), str(workdir))
    with pytest.raises(
        ValueError, match=r"config\.evaluate\.methods: method 'magic' is not one of off, etta, tent, bn, tta"
    ):
        evaluate.run(recipe(workdir, 2, 3, methods=("magic",)), str(workdir))


class Sided(nn.Module):
    """Liver wherever the window's voxel lies left of its middle, whatever it shows: not symmetric."""

    @nn.compact
    def __call__(self, x, *, train=False):
        scale = self.param("norm1", lambda key: {"scale": jnp.ones(1), "bias": jnp.zeros(1)})["scale"]
        left = jnp.arange(x.shape[1]).reshape(1, -1, 1, 1, 1) < x.shape[1] // 2
        left = jnp.broadcast_to(jnp.where(left, 5.0, -5.0) * scale[0], (*x.shape[:4], 1))
        return jnp.concatenate([0 * left, left, 0 * left, 0 * left - 9], -1)


@pytest.mark.parametrize("change", [{}, {"mirror": True}, {"dtype": "bfloat16"}])
def test_what_is_scored_is_what_inference_settings_predict(tmp_path, monkeypatch, change):
    dtypes, model = [], Sided()
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    segmenter = Segmenter(model, params, CARD)
    monkeypatch.setattr(Segmenter, "load", lambda workdir, *, dtype: dtypes.append(dtype) or segmenter)
    config = recipe(tmp_path, 1, 3, pictures=2)
    config.inference.update(change)
    evaluate.run(config, str(tmp_path))
    kept = read_volume(tmp_path / "evaluation" / "test" / "s0_off.nii.gz", kind="label").array
    expected = segmenter.predict(scan(seed=0), from_config(config)).volume.array
    np.testing.assert_array_equal(kept, expected)
    plain = segmenter.predict(scan(seed=0)).volume.array
    assert (kept != plain).any() == ("mirror" in change) and dtypes == [change.get("dtype", "")]


def test_gated_predictions_are_scored_gated(workdir):
    config = recipe(workdir, 1, 3)
    config.inference.gate = True
    seen = []
    gate = Segmenter.remove_out_of_view

    def record(self, labels, attributes):
        seen.append(attributes["sex"])
        return gate(self, labels, attributes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "remove_out_of_view", record)
        evaluate.run(config, str(workdir))
    assert seen == ["F", "F", "M", "M"]  # off and etta
