"""A grader that refuses what entropy accepts. Graders here are made up: one method, `grade`."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inference.networks import CARD, Bands, bands
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.inference.adaptation import grade_guard
from ukbob_jax.inference.adaptation.etta import etta
from ukbob_jax.inference.adaptation.methods import Method
from ukbob_jax.inference.adaptation.options import Adaptation
from ukbob_jax.inference.adaptation.window_batches import Program
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.labelling import teacher
from ukbob_jax.volumes.volume import Volume

MOVED = {"learning_rate": 0.03, "steps": 2, "max_drift": None}  # labels change, and entropy falls


def scan(seed=0):
    """Intensities near the borders of the network's bands."""
    values = np.random.default_rng(seed).choice([5, 28, 33, 57, 63, 95], (11, 9, 10)).astype(np.int16)
    return Volume(values, np.diag([2.0, 2, 2, 1]), (1, 1))


class Grades:
    """Dice of every label with the bands of the image, or, with sign -1, what is missing of it."""

    def __init__(self, sign=1.0, contrast=""):
        self.sign, self.contrast, self.seen = sign, contrast, []

    def grade(self, image, labels, spacing_mm):
        self.seen.append((image, labels, tuple(spacing_mm)))
        truth, dice = bands(image), np.full(4, np.nan)
        for organ in np.unique(labels):
            both = (labels == organ) & (truth == organ)
            dice[organ] = 2 * both.sum() / ((labels == organ).sum() + (truth == organ).sum())
        return types.SimpleNamespace(dice=dice if self.sign > 0 else 1 - dice)


@pytest.fixture(scope="module")
def segmenter():
    model = Bands()
    return Segmenter(model, model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"], CARD)


def adapted(segmenter, **options):
    found = segmenter.predict(scan(), method={"method": "etta", **MOVED, **options})
    return found.volume.array, found.report["adaptation"]


def test_a_result_that_lowers_the_grade_is_refused_and_one_that_raises_it_kept(segmenter):
    plain, told = adapted(segmenter)
    assert told["accepted"] and (plain != bands(scan().array)).any() and "grade_before" not in told
    grader = Grades()
    kept, told = adapted(segmenter, guard="both", grader=grader)
    np.testing.assert_array_equal(kept, bands(scan().array))
    assert not told["accepted"] and told["reason"].startswith("mean grade fell from 1 to 0.")
    assert told["grade_before"] == 1 > told["grade_after"]
    (image, before, spacing), (_, after, _) = grader.seen
    np.testing.assert_array_equal(image, scan().array)  # as it is stored, not as the network sees it
    np.testing.assert_array_equal(before, bands(scan().array))
    np.testing.assert_array_equal(after, plain)
    assert spacing == (2, 2, 2)
    other, told = adapted(segmenter, guard="sentinel", grader=Grades(-1))
    np.testing.assert_array_equal(other, plain)
    assert told["accepted"] and told["grade_before"] < told["grade_after"]


def test_by_grades_alone_entropy_may_rise(segmenter):
    uphill = {"learning_rate": -1e-4, "steps": 1, "optimizer": "sgd"}
    assert adapted(segmenter, **uphill)[1]["reason"] == "entropy did not fall"
    grader = Grades(-1)
    assert adapted(segmenter, **uphill, guard="both", grader=grader)[1]["reason"] == "entropy did not fall"
    assert not grader.seen  # what is refused is not graded
    told = adapted(segmenter, **uphill, guard="sentinel", grader=grader)[1]
    assert told["accepted"] and told["entropy_after"] > told["entropy_before"] and len(grader.seen) == 2


@pytest.mark.parametrize("before, after, means, fell", [
    ({1: 0.5, 2: 0.75}, {1: 0.5, 2: 0.75}, (0.625, 0.625), False),
    ({1: 0.5, 2: 0.75}, {1: 0.8}, (0.625, 0.4), True),  # 2 got lost
    ({1: 0.5}, {1: 0.5, 2: 0.75}, (0.5, 0.625), False),
    ({1: 0.5}, {1: 0.5, 2: 0.25}, (0.5, 0.375), True),  # 2 came, and is worse than the mean
    ({}, {1: 0.1}, (np.nan, 0.1), False),
    ({1: 0.5}, {}, (0.5, 0.0), True),
    ({}, {}, (np.nan, np.nan), False),
    ({1: 0.5, 3: np.nan}, {1: 0.6, 3: np.nan}, (0.5, 0.6), False),  # 3 has no grade: it takes no part
])  # fmt: skip
def test_the_mean_is_over_the_organs_found(before, after, means, fell):
    labels, tables = [], []
    for found in (before, after):
        labels.append(np.array([0, 255, *found], np.uint8)[:, None, None])
        tables.append(np.zeros(256))  # of an organ that is absent: an empty mask has grade 0
        tables[-1][list(found)] = list(found.values())
    graded = iter(tables)
    grader = types.SimpleNamespace(grade=lambda *_: types.SimpleNamespace(dice=next(graded)))
    found = grade_guard.mean_grades(grader, np.zeros((1, 1, 1)), tuple(labels), (1, 1, 1))
    np.testing.assert_allclose(found, means)
    assert found.fell == fell


def test_the_grader_sees_the_contrast_of_its_training(segmenter):
    assert grade_guard.channel_of(Grades(contrast="fat"), ("water", "fat")) == 1
    assert grade_guard.channel_of(Grades(), ("water",)) == 0
    with pytest.raises(ConfigError, match="was trained on 't2', and the network takes water, fat"):
        grade_guard.channel_of(Grades(contrast="t2"), ("water", "fat"))
    with pytest.raises(ConfigError, match="does not say on which contrast"):
        grade_guard.channel_of(Grades(), ("water", "fat"))


def test_a_teacher_of_one_contrast_grades_each(segmenter):
    image = Volume(np.stack([scan().array, scan(seed=1).array], -1), scan().affine)
    card = dataclasses.replace(CARD, labels={0: "background", 1: "liver", 2: "unused", 3: "spleen"})
    grader = Grades()
    options = PredictOptions(method={"method": "etta", **MOVED, "guard": "both", "grader": grader})
    found = teacher.label(Segmenter(segmenter.model, segmenter.params, card), image, options)
    assert found.shape == scan().shape and len(grader.seen) == 4
    np.testing.assert_array_equal(grader.seen[2][0], scan(seed=1).array)


def test_what_cannot_be_graded_is_refused_at_once(segmenter):
    with pytest.raises(ConfigError, match="guard 'sentinel' needs a grader"):
        Adaptation(guard="sentinel")
    with pytest.raises(ConfigError, match=r"guard 'dice' is not known\. Use one of entropy, sentinel, both"):
        Adaptation(guard="dice")
    with pytest.raises(ConfigError, match="has no method grade"):
        adapted(segmenter, guard="both", grader=3)
    x = np.zeros((8, 8, 8, 1), np.float32)
    with pytest.raises(ConfigError, match="Adapt with a Segmenter"):
        etta(segmenter.model, segmenter.params, x, roi=(8, 8, 8), guard="both", grader=Grades())


def test_a_workdir_without_a_grader_is_named(tmp_path):
    with pytest.raises(FileError, match="no grader there"):
        grade_guard.open_grader(str(tmp_path))


def test_the_guard_is_written_down_only_where_it_is_on_and_compiles_nothing():
    plain = Method.parse("etta").to_json()
    assert "guard" not in plain and "grader" not in plain and Method.parse(plain) == Method.parse("etta")
    chosen = Method.parse({"guard": "both", "grader": "runs/grader"})
    assert Method.parse(chosen.to_json()) == chosen
    assert Method.parse({"guard": "both", "grader": Grades()}).to_json()["grader"] == "Grades"
    programs = {Program.of((4, 4, 4), Adaptation(guard=g, grader="runs/grader")) for g in ("entropy", "both")}
    assert programs == {Program.of((4, 4, 4), Adaptation())}
    loose = Program.of((4, 4, 4), Adaptation(guard="sentinel", grader="runs/grader"))
    assert loose == Program.of((4, 4, 4), Adaptation(must_fall=False))
