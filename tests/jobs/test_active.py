"""A campaign played through on cubes in noise, and a query of what it trained; each network takes two steps."""

import csv
import json
import types

import jax
import nibabel
import numpy as np
import pytest

from configs import active as recipes
from tests import tiny_network
from ukbob_jax import files, networks, settings
from ukbob_jax.active import campaign, records, strategies
from ukbob_jax.active.committee import Committee, Scorer
from ukbob_jax.active.patches import Unit, overlap
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import active, query
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

SHAPE, AFFINE = (16, 16, 16), np.diag([2.0, 2.0, 2.0, 1.0])
TINY = tiny_network.__name__
pytestmark = pytest.mark.usefixtures("quick_compilation")


def cubes(seed):
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    for organ in (1, 2):
        x, y, z = rng.integers(1, 10, 3)
        label[x : x + 5, y : y + 5, z : z + 5] = organ
    return (100 * label + rng.integers(1, 60, SHAPE))[..., None].astype(np.int16), label


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("active") / "store"
    with StoreWriter(path) as writer:
        for seed in range(6):
            image, label = cubes(seed)
            labels = {"truth": label} if seed < 5 else {}
            writer.write(
                f"p{seed}", image, AFFINE, labels, source=str(seed), contrasts=("t1",),
                split=("train", "train", "train", "train", "val", "rest")[seed],
            )  # fmt: skip
    return str(path)


def recipe(store, variant="campaign", **changes):
    config = recipes.get_config(variant).copy_and_resolve_references()
    config = settings.with_network(config, [f"--config.model.name={TINY}"])
    given = {
        "store": store, "label": "truth", "data.val_label": "truth", "evaluate.label": "truth",
        "data.crop": SHAPE, "data.batch_size": 2, "data.threads": 2, "augment": (), "mesh.data": 1,
        "optimizer.learning_rate": 0.02, "optimizer.warmup_steps": 1, "train.steps": 2, "train.log_every": 1,
        "train.eval_every": 2, "train.checkpoint_every": 1, "inference.overlap": 0.0, "model.in_channels": 1,
        "model.out_channels": 0, "active.unit": "patch", "active.patch": (8, 8, 8), "active.budget": 3,
    }  # fmt: skip
    if variant == "campaign":
        given |= {"active.start": 3, "active.rounds": 1, "active.seeds": (0,), "active.full": True}
    return settings.with_fields(config, {**given, **changes})


@pytest.fixture(scope="module")
def played(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("campaign")
    active.run(recipe(store), str(workdir))
    return workdir


def test_every_round_adds_its_units_and_is_scored(played):
    rows = files.read_jsonl(played / "active.jsonl")
    assert [(row["strategy"], row["round"], row["units"]) for row in rows] == [
        *(("foreground_random", 0, 3), ("foreground_random", 1, 6)),
        *(("entropy", 0, 3), ("entropy", 1, 6)),
    ]
    assert rows[0]["dice"] == rows[2]["dice"] and rows[0]["chosen"] == rows[2]["chosen"]  # trained once
    assert all(0 <= row["dice"] <= 1 and row["voxels"] == 512 * row["units"] for row in rows)
    assert 0 < rows[0]["foreground_share"] <= rows[1]["foreground_share"] <= 1
    summary = json.loads((played / "active.summary.json").read_text())
    assert 0 <= summary["full"]["0"] <= 1
    area = summary["strategies"]["entropy"]["area"]["0"]
    assert area == pytest.approx((rows[2]["dice"] + rows[3]["dice"]) / 2)
    assert {(pair["first"], pair["second"]) for pair in summary["pairs"]} == {
        ("foreground_random", "entropy"), ("entropy", "foreground_random"),
    }  # fmt: skip
    assert (played / "active.png").read_bytes()[:4] == b"\x89PNG"
    assert len((played / "active.csv").read_text().splitlines()) == 5


def test_the_network_saw_nothing_but_the_units(played, store):
    found = Store.open(store)
    units = [
        unit for n in range(2) for unit in records.read(active.place(played, "entropy", 0, n) / "units.csv")
    ]
    split = files.read_json(played / "entropy" / "seed0" / "round1" / "splits.json")
    assert split["train"] == sorted({unit.subject for unit in units}) and split["val"] == ["p4"]
    for subject in split["train"]:
        known = np.zeros(SHAPE, int)
        for unit in units:
            if unit.subject == subject:
                known[unit.box] += 1
        assert known.max() == 1
        truth, given = (found.read(subject, f"label/{name}") for name in ("truth", "active_entropy_0"))
        np.testing.assert_array_equal(given, np.where(known, truth, 255))


def test_the_same_command_again_trains_nothing_and_a_lost_record_is_made_again(played, store, monkeypatch):
    before = (played / "active.jsonl").read_bytes()
    monkeypatch.setattr(active, "learn", None)
    active.run(recipe(store), str(played))
    assert (played / "active.jsonl").read_bytes() == before
    monkeypatch.undo()
    kept = before.splitlines(keepends=True)
    (played / "active.jsonl").write_bytes(b"".join(kept[:3]))
    metrics = played / "entropy" / "seed0" / "round1" / "member0" / "metrics.jsonl"
    written = metrics.read_bytes()
    active.run(recipe(store), str(played))
    assert (played / "active.jsonl").read_bytes() == before and metrics.read_bytes() == written


def test_a_workdir_goes_on_with_its_own_settings_only(played, store):
    with pytest.raises(ConfigError, match=r"config.train.steps: 9, but .* was begun with 2"):
        active.run(recipe(store, **{"train.steps": 9}), str(played))
    with pytest.raises(ConfigError, match=r"config.splits: '5 subjects, .* begun with '4 subjects"):
        campaign.check_settings(played, recipe(store), ["p0", "p1", "p2", "p3", "p5"])
    with pytest.raises(ConfigError, match=r"config.active.budget: 2, but .* was begun with 3"):
        active.run(recipe(store, **{"active.budget": 2}), str(played))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"active.strategies": ("magic",)}, "config.active.strategies: 'magic'"),
        ({"active.start_by": "entropy"}, "config.active.start_by: 'entropy'"),
        ({"active.strategies": ("mutual_information",)}, "config.active.members"),
        ({"active.strategies": ("sentinel",)}, "config.active.grader"),
        ({"active.unit": "slice"}, "config.active.unit"),
        ({"active.patch": (8, 8)}, "config.active.patch"),
        ({"active.odds": "2:1"}, "config.active.odds"),
        ({"active.overlap": 1.0}, "config.active.overlap"),
        ({"active.budget": 0}, "config.active.budget: 0 is less than 1"),
        ({"label": "manual"}, "config.label: p0 has no label set 'manual'"),
        ({"evaluate.split": "train"}, "config.evaluate.split: 'train' has scans to choose from"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_trained(store, tmp_path, fields, words):
    with pytest.raises(ConfigError, match=words):
        active.run(recipe(store, **fields), str(tmp_path))


@pytest.fixture(scope="module")
def trained(played):
    return str(played / "start" / "seed0" / "round0" / "member0")


def asked(store, trained, tmp_path, **changes):
    given = {
        "active.strategies": ("entropy",), "query.workdirs": (trained,), "query.output": str(tmp_path / "query"),
    }  # fmt: skip
    return recipe(store, "query", **{**given, **changes})


def test_a_query_lists_what_to_annotate_and_shows_where(store, trained, tmp_path):
    query.run(asked(store, trained, tmp_path), str(tmp_path))
    with (tmp_path / "query" / "query.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] and {row["subject"] for row in rows} == {"p5"}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    boxes = np.asarray(nibabel.load(tmp_path / "query" / "p5.nii.gz").dataobj)
    assert [(boxes == rank).sum() for rank in (1, 2, 3)] == [512] * 3
    first = records.read(tmp_path / "query" / "query.csv")[0]
    assert (boxes[first.box] == 1).all()
    again = {"query.labelled": str(tmp_path / "query" / "query.csv"), "query.output": str(tmp_path / "next")}
    query.run(asked(store, trained, tmp_path, **again), str(tmp_path))
    new = np.asarray(nibabel.load(tmp_path / "next" / "p5.nii.gz").dataobj)
    assert new.any() and not (new[boxes > 0]).any()


def test_a_query_without_labels_draws_around_what_the_network_finds(store, trained, tmp_path):
    query.run(asked(store, trained, tmp_path, **{"active.strategies": ("foreground_random",)}), str(tmp_path))
    assert len(records.read(tmp_path / "query" / "query.csv")) == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"query.workdirs": ()}, "config.query.workdirs: empty"),
        ({"query.split": "train"}, "every scan has a label set 'truth'"),
        ({"active.strategies": ("random", "entropy")}, "name one to choose by"),
        ({"active.ensemble": "dropout", "active.members": 2}, "without dropout"),
        ({"active.ensemble": "magic"}, "seeds, checkpoints, dropout"),
        ({"active.strategies": ("mutual_information",)}, "config.active.members"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(store, trained, tmp_path, fields, words):
    with pytest.raises(ConfigError, match=words):
        query.run(asked(store, trained, tmp_path, **fields), str(tmp_path))


def test_a_list_of_units_is_checked(tmp_path):
    shapes = {"a": (8, 8, 8)}
    records.write(tmp_path / "u.csv", [Unit("a", (1, 2, 3), (4, 4, 4), 0.5)])
    assert records.read(tmp_path / "u.csv", shapes) == [Unit("a", (1, 2, 3), (4, 4, 4), 0.5)]
    for unit, words in (
        (Unit("b", (0, 0, 0), (1, 1, 1)), "no subject 'b'"),
        (Unit("a", (5, 0, 0), (4, 1, 1)), "leaves"),
    ):
        records.write(tmp_path / "u.csv", [unit])
        with pytest.raises(FileError, match=words):
            records.read(tmp_path / "u.csv", shapes)
    (tmp_path / "u.csv").write_text("subject,start_x\na,1\n")
    with pytest.raises(FileError, match="line 2: not a unit"):
        records.read(tmp_path / "u.csv")


@pytest.fixture(scope="module")
def scorer(store, played, trained):
    two = [trained, str(played / "entropy" / "seed0" / "round1" / "member0")]
    committee = Committee.load(two, "seeds", 1)
    return Scorer(Store.open(store), committee, committee.window(0.0, "gaussian", 4))


def test_maps_of_several_networks_belong_together(scorer):
    maps = {kind: dict(scorer.maps("p5", kind)) for kind in
            ("predictive_entropy", "expected_entropy", "mutual_information", "class_entropy")}  # fmt: skip
    whole, expected, between = (np.asarray(maps[kind][0]) for kind in list(maps)[:3])
    np.testing.assert_allclose(between, np.maximum(whole - expected, 0), atol=1e-6)
    assert between.max() > 0 and whole.max() <= np.log(3) + 1e-5
    mean, _ = scorer.probabilities("p5")
    np.testing.assert_allclose(np.asarray(mean).sum(-1), 1, atol=1e-5)
    assert list(maps["class_entropy"]) == [0, 1, 2]
    np.testing.assert_allclose(maps["class_entropy"][1], whole * np.asarray(mean)[..., 1], atol=1e-6)


def test_one_network_gives_the_same_entropy_with_and_without_whole_probabilities(scorer, trained):
    committee = Committee.load([trained], "seeds", 1)
    one = Scorer(scorer.store, committee, scorer.window)
    _, expected = one.probabilities("p5")
    np.testing.assert_allclose(dict(one.maps("p5", "predictive_entropy"))[0], expected, atol=1e-5)


def test_grades_become_maps_of_need(scorer):
    labels = np.asarray(scorer.segment("p5").labels)
    seen = []

    def grade(image, given, spacing_mm):
        seen.append((image.shape, tuple(spacing_mm)))
        np.testing.assert_array_equal(given, labels)
        return types.SimpleNamespace(dice=np.array([np.nan, 0.75, 0.5]))

    graded = Scorer(scorer.store, scorer.committee, scorer.window, grader=types.SimpleNamespace(grade=grade))
    need = dict(graded.maps("p5", "sentinel"))[0]
    assert seen == [((*SHAPE, 1), (2.0, 2.0, 2.0))]
    np.testing.assert_allclose(need, np.array([0, 0.25, 0.5])[labels])
    organs = [i for i in (1, 2) if (labels == i).any()]
    whole = Scorer(scorer.store, scorer.committee, scorer.window, {}, graded.grader, True)
    wanted = np.mean([(0, 0.25, 0.5)[i] for i in organs]) if organs else 1
    np.testing.assert_allclose(whole.grade_map("p5"), wanted)


def test_features_differ_between_places_and_are_standardised(scorer):
    units = [Unit("p0", (0, 0, 0), (8, 8, 8)), Unit("p1", (8, 8, 8), (8, 8, 8)), Unit("p2", (0, 0, 0), SHAPE)]
    found = scorer.features(units)
    assert len(found) == 3 and np.abs(found[0] - found[1]).max() > 0.1
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)


@pytest.mark.parametrize("unit", ["scan", "patch"])
@pytest.mark.parametrize("name", strategies.STRATEGIES)
def test_every_strategy_chooses_new_units_and_the_same_ones_again(scorer, name, unit):
    grader = types.SimpleNamespace(
        grade=lambda image, labels, _: types.SimpleNamespace(dice=np.array([np.nan, image.mean() / 200, 0.3]))
    )
    asked = Scorer(scorer.store, scorer.committee, scorer.window, {}, grader, unit == "scan")
    taken = (Unit("p0", (0, 0, 0), (8, 8, 8) if unit == "patch" else SHAPE),)
    pool = strategies.Pool(
        dict.fromkeys(("p0", "p1", "p2"), SHAPE), unit, (8, 8, 8), taken,
        lambda subject: scorer.store.read(subject, "label/truth"),
        lambda subject: scorer.store.present(subject, "truth"),
    )  # fmt: skip
    found, again = (
        strategies.choose(name, pool, 4, np.random.default_rng(5), asked, beta=2.0) for _ in range(2)
    )
    assert found == again and len(found) == (4 if unit == "patch" else 2)
    assert not any(overlap(u, [*taken, *(v for v in found if v is not u)]) for u in found)
    if strategies.STRATEGIES[name].choice in ("best", "power", "rank"):
        scores = [u.score for u in found]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1


def test_draws_of_dropout_and_checkpoints_are_committees(scorer, trained, monkeypatch):
    same = Committee.load([trained], "checkpoints", 1)  # its best checkpoint is its latest
    assert len(same.members) == 2
    with pytest.raises(ConfigError, match="all networks say the same of p5"):
        next(Scorer(scorer.store, same, scorer.window).maps("p5", "mutual_information"))
    model = networks.from_section(
        {
            "name": "plain_unet", "in_channels": 1, "out_channels": 3, "n_stages": 2, "features_per_stage": (4, 8),
            "kernel_sizes": ((3, 3, 3),) * 2, "strides": ((1, 1, 1), (2, 2, 2)), "n_conv_per_stage": (1, 1),
            "n_conv_per_stage_decoder": (1,), "dropout": "voxels", "dropout_rate": 0.3, "deep_supervision": True,
        }
    )  # fmt: skip
    params = model.init(jax.random.key(0), np.zeros((1, *SHAPE, 1), np.float32))["params"]
    with_dropout = Segmenter(model, params, scorer.committee.segmenter.card)
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: with_dropout)
    committee = Committee.load([trained], "dropout", 3)
    draws = Scorer(scorer.store, committee, scorer.window)
    between = np.asarray(dict(draws.maps("p5", "mutual_information"))[0])
    assert len(committee.members) == 3 and between.max() > 1e-5
    with pytest.raises(ConfigError, match="cannot disagree"):
        Committee.load([trained], "dropout", 1)
