"""From a store to a trained network that a Segmenter can load; Swin-UNETR's own way is in `test_demo.py`."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import common
from tests import tiny_network
from ukbob_jax import anatomy, files, phantom, settings, weights
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import train
from ukbob_jax.models.card import ModelCard
from ukbob_jax.quality import grades
from ukbob_jax.quality.grades import Grade
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.training.checkpoints import restore_params

SHAPE = (32, 24, 64)
ORGANS = ("liver", "muscle")
TINY = tiny_network.__name__


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("train") / "store"
    with StoreWriter(path) as writer:
        for seed in range(4):
            image, label = phantom.subject(seed, SHAPE)
            writer.write(
                f"p{seed}", image, phantom.affine(SHAPE), {"manual": label}, source=str(seed),
                split="val" if seed == 3 else "train", contrasts=phantom.CONTRASTS,
            )  # fmt: skip
    return path


def recipe(store, network=TINY, **changes):
    config = common.base().copy_and_resolve_references()
    config = settings.with_network(config, [f"--config.model.name={network}"])
    given = {
        "store": str(store), "label": "manual", "data.val_label": "manual",
        "data.crop": (32, 32, 32), "data.batch_size": 2, "data.flagged": "off", "data.threads": 2,
        "augment": ("intensity",), "mesh.data": 1, "optimizer.learning_rate": 0.02,
        "optimizer.warmup_steps": 1, "train.steps": 2, "train.log_every": 1, "train.eval_every": 2,
        "train.checkpoint_every": 1, "train.ema": 0.5, "organs": ORGANS, "inference.overlap": 0.0,
    }  # fmt: skip
    return settings.with_fields(config, {**given, **changes})


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train.run(recipe(store), str(workdir))
    return workdir


def test_a_run_leaves_numbers_a_network_and_what_it_was_made_of(trained, store):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 2]
    assert rows[1]["train/loss"] < rows[0]["train/loss"]
    assert set(rows[2]) == {"step", "val/dice", "val/dice/liver", "val/dice/muscle"}
    card = Segmenter.load(trained).card
    assert card.contrasts == tuple(phantom.CONTRASTS) and card.window == (32, 32, 32)
    assert card.labels[5] == "liver" and card.architecture == TINY and card.task == "segmentation"
    np.testing.assert_allclose(card.spacing_mm, phantom.spacing_mm(SHAPE))
    assert json.loads((trained / "config.json").read_text())["model"]["width"] == 4


def test_the_network_loads_for_inference(trained):
    segmenter = Segmenter.load(trained)
    assert segmenter.model.width == 4 and len(segmenter.card.labels) == 73


def test_the_same_command_again_passes_a_finished_run_over(trained, store):
    before = (trained / "metrics.jsonl").read_bytes()
    train.run(recipe(store), str(trained))
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_a_resume_with_another_recipe_names_the_fields(trained, store):
    changed = recipe(store, **{"data.batch_size": 1, "optimizer.learning_rate": 0.5, "data.threads": 7})
    with pytest.raises(ConfigError) as caught:
        train.run(changed, str(trained))
    message = str(caught.value)
    assert "data.batch_size was 2, is 1" in message and "optimizer.learning_rate was 0.02, is 0.5" in message
    assert "threads" not in message
    assert files.read_json(trained / "config.json")["data"]["batch_size"] == 2  # of what is in the folder


@pytest.mark.slow
def test_deep_supervision_trains_resumes_elsewhere_and_leaves_a_network_for_inference(store, tmp_path):
    """The second step again, from the first's checkpoint, on two devices and with recomputation."""
    deep = {"model.feature_size": 12, "model.depths": (1, 1, 1, 1), "model.deep_supervision": 2}
    deep = {"network": "swin_unetr", **deep, "optimizer.learning_rate": 1e-4}
    train.run(recipe(store, **deep), str(tmp_path))
    expected = restore_params(tmp_path / "checkpoints", "latest")[0]
    assert {"aux_0", "aux_1"} < set(expected)
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000002")
    train.run(recipe(store, **deep, **{"mesh.fsdp": 2, "model.remat": True}), str(tmp_path))
    again = restore_params(tmp_path / "checkpoints", "latest")[0]
    # Adam's first steps are as long as the rate (1e-4) wherever the gradient points, rounding included.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2.5e-4), again, expected)
    assert Segmenter.load(tmp_path).model.deep_supervision == 2
    model = ModelCard.from_json(restore_params(tmp_path / "checkpoints")[2], tmp_path).build()
    assert not any(name.startswith("aux") for name in weights.load(tmp_path, model))


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"model.in_channels": 1}, "config.model.in_channels is 1, but the store has 4 contrasts"),
        ({"model.out_channels": 60}, r"label 7\d needs config.model.out_channels of at least 7\d; it is 60"),
        ({"loss.name": "focal"}, "config.loss.name: 'focal' is unknown"),
        ({"loss.smooth_dr": -1.0}, "config.loss.smooth_dr: -1.0 is not a number from 0 on"),
        ({"train.keep": 0}, "config.train.keep: 0 is less than 1"),
        ({"train.best": ("val/dice", "most")}, "config.train.best: .* is not"),
        ({"label": ""}, "config.label: empty; name the label set to learn"),
        ({"organs": ("livre",)}, "config.organs: 'livre' is not among"),
        ({"data.train_split": "training"}, "no split 'training'; it has"),
        ({"label": "expert"}, "no label set 'expert'; it has manual"),
        ({"augment": ("gama",)}, "config.augment: 'gama' is not known"),
        ({"train.steps": 1}, "optimizer.warmup_steps: 1 is not in 0..0"),
        ({"train.accumulate": 3}, "config.train.accumulate: 3 does not divide config.data.batch_size 2"),
        ({"train.ema": 1.0}, r"config.train.ema: 1.0 is not in \[0, 1\)"),
        ({"mesh.space": 3}, "config.data.crop: 32 voxels along x do not divide over mesh.space 3"),
        ({"train.log_every": 0}, "config.train.log_every: 0 is less than 1"),
        ({"train.checkpoint_every": 0}, "config.train.checkpoint_every: 0 is less than 1"),
        ({"data.batch_size": -2}, "config.data.batch_size: -2 is less than 1"),
        ({"mesh.space": 0}, "config.mesh.space: 0 is less than 1"),
        ({"epochs.total": -1}, "config.epochs.total: -1 is less than 0"),
        ({"data.crop": (32, 32)}, r"config.data.crop: \(32, 32\) is not three numbers"),
        ({"model.dtype": "bf16"}, "config.model.dtype: 'bf16' is unknown"),
        ({"data.val_label": "expert"}, "config.data.val_label: p3: no label set 'expert'"),
        (
            {"label": "expert", "data.organs": ("liver",), "model.out_channels": 0},
            "config.label: p0: no label set 'expert'",
        ),
        ({"optimizer.frozen": "stage9"}, "optimizer.frozen: 'stage9' matches no parameter"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(store, tmp_path, changes, named):
    with pytest.raises(ConfigError, match=named):
        train.run(recipe(store, **changes), str(tmp_path))
    assert not (tmp_path / "checkpoints").exists()


def test_labels_are_not_trusted_unseen(store, tmp_path):
    with pytest.raises(FileError, match="no verdicts on label set 'manual'"):
        train.run(recipe(store, **{"data.flagged": "ignore"}), str(tmp_path))


def test_grades_weigh_what_is_learnt_from(trained, store, tmp_path):
    """All graded 1 it is the run without a filter; the same labels graded otherwise are another loss."""
    first = {}
    for name, of_liver in (("plain", 1.0), ("graded", 0.1)):
        path = tmp_path / f"{name}.jsonl"
        organs = [(f"p{seed}", organ) for seed in range(3) for organ in range(1, 73)]
        rows = [(s, o, Grade(of_liver if o == anatomy.IDS["liver"] else 1.0)) for s, o in organs]
        files.write_jsonl(path, grades.rows(rows))
        filtered = {"data.flagged": "ignore", "data.flagged_by": "weighted", "data.grades": str(path)}
        train.run(recipe(store, **filtered, **{"train.steps": 2}), str(tmp_path / name))
        first[name] = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])[
            "train/loss"
        ]
    expected = json.loads((trained / "metrics.jsonl").read_text().splitlines()[0])["train/loss"]
    np.testing.assert_allclose(first["plain"], expected, rtol=1e-6)
    assert abs(first["graded"] - expected) > 1e-4
