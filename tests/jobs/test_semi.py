"""Labels of a teacher of two steps, chosen by every method, and learnt from."""

import json
import types

import numpy as np
import pytest

from configs import semi as recipes
from tests.jobs.test_active import TINY, cubes
from ukbob_jax import files, settings
from ukbob_jax.active import pseudo
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs import semi
from ukbob_jax.quality.verdicts import flagged_organs
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

SHAPE = (16, 16, 16)
pytestmark = pytest.mark.usefixtures("quick_compilation")
METHODS = ("none", "all", "random", "entropy", "solf")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("semi") / "store"
    with StoreWriter(path) as writer:
        for seed in range(6):
            image, label = cubes(seed)
            labels = {"truth": label} if seed in (0, 1, 5) else {}
            writer.write(
                f"p{seed}", image, np.diag([2.0, 2.0, 2.0, 1.0]), labels, source=str(seed), contrasts=("t1",),
                split="val" if seed == 5 else "train",
            )  # fmt: skip
    return str(path)


def recipe(store, **changes):
    config = recipes.get_config().copy_and_resolve_references()
    config = settings.with_network(config, [f"--config.model.name={TINY}"])
    given = {
        "store": store, "label": "truth", "data.val_label": "truth", "evaluate.label": "truth",
        "data.crop": SHAPE, "data.batch_size": 2, "data.threads": 2, "augment": (), "mesh.data": 1,
        "optimizer.learning_rate": 0.02, "optimizer.warmup_steps": 1, "train.steps": 2, "train.log_every": 1,
        "train.eval_every": 2, "train.checkpoint_every": 1, "inference.overlap": 0.0, "model.in_channels": 1,
        "model.out_channels": 0, "semi.labelled": 2, "semi.seeds": (0,), "semi.methods": METHODS,
        "solf.min_count": 2, "solf.min_voxels": 1,
    }  # fmt: skip
    return settings.with_fields(config, {**given, **changes})


@pytest.fixture(scope="module")
def learnt(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("learnt")
    semi.run(recipe(store), str(workdir))
    return workdir


def test_every_method_learns_from_its_own_choice(learnt, store):
    rows = {row["method"]: row for row in files.read_jsonl(learnt / "semi.jsonl")}
    assert tuple(rows) == METHODS and all(0 <= row["dice"] <= 1 for row in rows.values())
    found = Store.open(store)
    made = [(s, organ) for s in ("p2", "p3", "p4") for organ in found.present(s, "semi_0")]
    assert made and rows["all"]["kept"] == rows["all"]["labels"] == len(made)
    for method in ("random", "entropy"):
        flagged = flagged_organs(store, "semi_0", learnt / "seed0" / method / "verdicts.jsonl")
        left_out = sum(len(organs) for organs in flagged.values())
        assert rows[method]["kept"] == len(made) - left_out < len(made)
        assert set(flagged) <= {"p2", "p3", "p4"}
        assert rows[method]["seconds"] > 0 and rows[method]["disk_bytes"] > 0
        split = files.read_json(learnt / "seed0" / method / "splits.json")
        assert split["train"] == ["p0", "p1", "p2", "p3", "p4"]
    assert rows["solf"]["disk_bytes"] > rows["entropy"]["disk_bytes"]
    for subject in ("p0", "p1"):
        truth, given = (found.read(subject, f"label/{name}") for name in ("truth", "semi_0"))
        np.testing.assert_array_equal(given, truth)
    summary = json.loads((learnt / "semi.summary.json").read_text())
    assert summary["none"]["against_none"]["mean"] == 0
    assert summary["all"]["against_none"]["mean"] == pytest.approx(rows["all"]["dice"] - rows["none"]["dice"])
    assert len((learnt / "semi.csv").read_text().splitlines()) == 1 + len(METHODS)


def test_the_same_command_again_trains_nothing(learnt, store, monkeypatch):
    before = (learnt / "semi.jsonl").read_bytes()
    monkeypatch.setattr(semi, "arm", None)
    semi.run(recipe(store), str(learnt))
    assert (learnt / "semi.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"semi.methods": ("magic",)}, "config.semi.methods: 'magic'"),
        ({"semi.keep": 0.0}, "config.semi.keep"),
        ({"semi.labelled": 3}, "config.semi.labelled: 3, but 2 scans"),
        ({"semi.methods": ("sentinel",)}, "config.active.grader"),
        ({"semi.methods": ("dropout",), "active.members": 1}, "config.active.members"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_trained(store, tmp_path, fields, words):
    with pytest.raises(ConfigError, match=words):
        semi.run(recipe(store, **fields), str(tmp_path))


def test_of_each_organ_the_most_trusted_labels_are_kept():
    trust = {("a", 1): 0.9, ("b", 1): 0.1, ("c", 1): 0.5, ("d", 1): 0.7, ("a", 2): 0.0, ("b", 2): 0.2}
    assert pseudo.most_trusted(trust, 0.5) == {("a", 1), ("d", 1), ("b", 2)}
    assert pseudo.most_trusted(trust, 1.0) == set(trust)
    assert pseudo.most_trusted(trust, 0.2) == {("a", 1), ("b", 2)}
    assert pseudo.most_trusted(trust, 0.6) == {("a", 1), ("d", 1), ("c", 1), ("b", 2), ("a", 2)}


def test_grades_are_trust(learnt, store):
    found, seen = Store.open(store), []

    def grade(image, labels, spacing_mm):
        seen.append((image.shape, int(labels.max()), tuple(spacing_mm)))
        return types.SimpleNamespace(dice=np.array([np.nan, 0.25, np.nan]))

    grader = types.SimpleNamespace(grade=grade)
    assert pseudo.by_grade(found, grader, ["p0"], "semi_0", "t1") == {("p0", 1): 0.25, ("p0", 2): 0.0}
    assert seen == [((*SHAPE, 1), 2, (2.0, 2.0, 2.0))]


def test_uncertainty_is_distrust(learnt, store):
    found = Store.open(store)
    label = found.read("p2", "label/semi_0")
    rng = np.random.default_rng(0)
    values = rng.random(SHAPE)
    scorer = types.SimpleNamespace(store=found, maps=lambda *_: iter([(0, values)]))
    trust = pseudo.by_map(scorer, ["p2"], "semi_0", "predictive_entropy")
    assert set(trust) == {("p2", organ) for organ in found.present("p2", "semi_0")}
    for (_, organ), value in trust.items():
        assert value == pytest.approx(-values[label == organ].mean())
