"""What training looks at: organs that a subject was not annotated for are not counted against the network."""

from types import SimpleNamespace

import ml_collections
import numpy as np
import pytest

from configs import common
from ukbob_jax import phantom
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs.train import validation
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.regions import brats
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

TRUE = np.repeat(np.arange(4, dtype=np.uint8), 16).reshape(4, 4, 4)  # a plane of each class


@pytest.fixture
def validated(tmp_path, monkeypatch):
    """The numbers for a network that finds classes 1 to 3 everywhere right, on subjects annotated as told."""

    def run(annotated, regions=None, organs=()):
        with StoreWriter(tmp_path / "store") as writer:
            for subject, known in annotated.items():
                label = TRUE if known is None else np.where(np.isin(TRUE, known), TRUE, 0)
                image = np.zeros((4, 4, 4, 1), np.int16)
                writer.write(
                    subject, image, np.eye(4), {"manual": label.astype(np.uint8)}, source="", annotated=known
                )
        monkeypatch.setattr(validation, "segment", lambda *args, **kwargs: SimpleNamespace(labels=TRUE))
        monkeypatch.setattr(validation.sharding, "local_copy", lambda tree, mesh: tree)
        config = ml_collections.ConfigDict({"organs": organs, "inference": common.base().inference})
        config.train = common.base().train
        config.data = dict(val_label="manual", normalize="zscore", crop=(4, 4, 4))
        store, names = Store.open(tmp_path / "store"), dict(enumerate(("background", "a", "b", "c")))
        data = TrainingData(store, (), store.subjects, "manual", ("0",), names, None, regions, {})
        evaluate = validation.validator(config, data, SwinUNETR(1, 4), None)
        return evaluate(SimpleNamespace(inference_params={}, model_state={}))[0]

    return run


def test_an_organ_that_is_not_annotated_is_not_scored(validated):
    found = validated({"s0": None, "s1": [1, 3]})
    assert found == {"val/dice": 1.0, "val/dice/a": 1.0, "val/dice/b": 1.0, "val/dice/c": 1.0}
    only = validated({"s0": [1, 3], "s1": [1, 3]})
    assert only["val/dice"] == 1.0 and np.isnan(only["val/dice/b"])


def test_a_ranking_by_a_number_that_is_not_given_is_refused_before_the_first_step():
    validation.check_ranking("val/dice/liver", ["liver", "spleen"])
    with pytest.raises(
        ConfigError, match=r"config.train.best: .* 'val/dise'; choose one of val/dice, val/dice/liver"
    ):
        validation.check_ranking("val/dise", ["liver"])


def test_a_region_counts_where_all_its_values_are_annotated(validated):
    regions = brats("decathlon")
    found = validated({"s0": [1, 2, 3], "s1": [2, 3]}, regions)
    assert all(found[f"val/dice/{name}"] == 1.0 for name in regions.names)
    known = np.zeros(256, bool)
    known[[2, 3]] = True
    assert dict(zip(regions.names, regions.annotated(known))) == {"WT": False, "TC": True, "ET": True}


def test_dice_is_averaged_over_subjects_then_over_organs():
    nan = float("nan")
    scores = np.array([[1.0, 0.5, 0.2, nan], [1.0, nan, 0.4, nan]])
    found = validation.dice_numbers(scores, {"a": 1, "b": 2, "c": 3})
    assert found["val/dice/a"] == 0.5 and found["val/dice/b"] == pytest.approx(0.3)
    assert np.isnan(found["val/dice/c"]) and found["val/dice"] == pytest.approx(0.4)


def test_a_preview_shows_truth_and_prediction_side_by_side():
    image, label = phantom.subject(0, (32, 24, 64))
    picture = validation.preview_row(image[..., 0], label, np.zeros_like(label))
    assert picture.shape == (64, 2 * 32, 3) and picture.dtype == np.uint8
    left, right = picture[:, :32].astype(int), picture[:, 32:]
    assert np.ptp(left, axis=-1).max() > 50 and np.ptp(right, axis=-1).max() == 0  # colours, and plain grey
