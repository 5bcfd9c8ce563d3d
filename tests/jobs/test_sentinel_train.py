"""From a store's labels to a grader: what it learns from, that it resumes, and what it says of itself."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from configs import common
from tests import tiny_network, tiny_sentinel
from tests.tiny_sentinel import recipe
from tools import kill_test
from ukbob_jax import anatomy, files, settings, weights
from ukbob_jax.errors import ConfigError, FileError, MismatchError, Preempted
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import sentinel_evaluate, train
from ukbob_jax.jobs import sentinel_train as job
from ukbob_jax.sentinel import assess, degradation, grading, preprocessing, setup, stream, trained
from ukbob_jax.sentinel.predictions import Predictions
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.training.checkpoints import restore_params, steps_of
from ukbob_jax.training.state import PRETEXT
from ukbob_jax.volumes.case import Description
from ukbob_jax.volumes.volume import Volume

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("sentinel") / "store"
    tiny_sentinel.write_store(path)
    return path


@pytest.fixture(scope="module", params=list(tiny_sentinel.CASES))
def graded(request, store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param)
    config = recipe(store, request.param, **{"sentinel.held_out_organs": ("liver", "spleen")})
    job.run(config, str(workdir))
    return request.param, workdir, config


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_training_says_what_it_is_and_how_well_it_grades(graded):
    case, workdir, _ = graded
    found = [row for row in rows(workdir) if "train/loss" in row]
    assert len(found) == 6 and all(np.isfinite(row["train/loss"]) for row in found)
    assert ("train/auc_margin" in found[0]) == (case == "slices") and "train/ranking" in found[0]
    said = files.read_json(workdir / "sentinel.json")
    assert said["grader"] == case and said["held_out_organs"] == ["liver", "spleen"] and said["masks"] >= 18
    assert (
        0 <= said["interval"] <= 1
        and {"r", "mae", "roc_area", "precision", "r_unseen"} <= said["scores"].keys()
    )
    page = (workdir / "report" / "index.html").read_text()
    with Image.open(workdir / "report" / "sentinel.png") as picture:
        assert "organs never seen" in page and picture.width > 600
    pairs = files.read_jsonl(workdir / "report" / assess.ROWS)
    unseen = {anatomy.IDS["liver"], anatomy.IDS["spleen"]}
    assert len(pairs) == said["masks"] and unseen & {row["organ"] for row in pairs}
    errors = [abs(row["predicted"] - row["dice"]) for row in pairs if row["organ"] not in unseen]
    np.testing.assert_allclose(np.mean(errors), said["scores"]["mae"], rtol=1e-6)


def test_a_grader_is_loaded_and_grades_as_its_evaluation_did(graded, store):
    """What the host prepares for training and evaluation is what `grade` prepares on the device."""
    case, workdir, config = graded
    grader = trained.load(workdir)
    made = setup.open_setup(config, str(workdir))
    pairs = made.pairs("test", config.seed)
    scan = pairs.scan("p4")
    masks = stream.held_out([(pairs, 4)], ["p4"], 4)
    predicted, _ = assess.predictor(made.model, made.vectors, case)(grader.variables, masks)
    predicted = grader.calibrated(predicted)
    for index in range(2):
        pair = pairs.pair("p4", index, scan)
        labels = (pair.mask * pair.label).astype(np.uint8)
        one = grader.grade(scan.image, labels, scan.spacing_mm)
        # rows are kept as float16
        np.testing.assert_allclose(one.dice[pair.label], predicted[index], atol=2e-3)
        assert one.low[pair.label] <= one.dice[pair.label] <= one.high[pair.label]
    assert one.reason[anatomy.IDS["heart"]] in ("", grading.EMPTY)


def test_a_graders_workdir_is_no_teacher_and_its_weights_start_another(graded, store, tmp_path):
    case, workdir, _ = graded
    with pytest.raises(MismatchError, match="network of regression, which draws no labels"):
        Segmenter.load(workdir)
    params, _, _ = restore_params(workdir / "checkpoints", "best")
    assert (PRETEXT in params) == (case == "slices")
    if case == "slices":
        assert params[PRETEXT]["alpha"] >= 0
    loaded = weights.read(workdir, trained.load(workdir).model)
    assert loaded.report.complete and PRETEXT not in loaded.params
    start = {
        "init": str(workdir),
        "train.steps": 1,
        "optimizer.warmup_steps": 0,
        "optimizer.learning_rate": 0.0,
    }
    job.run(recipe(store, case, **start), str(tmp_path))
    again, _, _ = restore_params(tmp_path / "checkpoints", "latest")
    both = [{name: tree for name, tree in p.items() if name != PRETEXT} for p in (params, again)]
    jax.tree.map(np.testing.assert_array_equal, *both)  # all of the network, the detector too


def test_batches_are_a_function_of_the_step_alone(store):
    """Two processes' shares are one's batch, partners included; held-out organs are never drawn; masks are never empty."""
    config = recipe(
        store, **{"sentinel.held_out_organs": ("liver", "stomach", "heart"), "data.batch_size": 12}
    )
    made = setup.open_setup(config, "")
    source = made.batches(config, made.pairs("train", 0))
    whole = source[5]
    for process in range(2):
        part = stream.dataclasses.replace(source, process=process, processes=2)[5]
        for name, values in part.items():
            np.testing.assert_array_equal(values, whole[name][process * 6 : process * 6 + 6], err_msg=name)
    streamed = stream.batches(source, 5, 2, 0)
    first = next(streamed)
    streamed.close()
    for name, values in whole.items():
        np.testing.assert_array_equal(first[name], values)
    seen = [source[step] for step in range(6)]
    classes = np.concatenate([batch["class"] for batch in seen])
    assert not {anatomy.IDS[name] for name in ("liver", "stomach", "heart")} & set(classes.tolist())
    assert all((batch["seen"][..., 1].max((1, 2, 3)) > -1).all() for batch in seen)
    assert all((batch["partner"] != np.arange(12)).all() for batch in seen)
    dice = np.concatenate([batch["dice"] for batch in seen])
    assert dice.min() == 0 and dice.max() > 0.9


def test_views_on_the_host_are_those_of_the_device(store):
    config = recipe(store)
    made = setup.open_setup(config, "")
    pairs = made.pairs("train", 0)
    scan = pairs.scan("p0")
    pair = pairs.pair("p0", 3, scan)
    where = np.argwhere(pair.mask)
    cube = preprocessing.cube(where.min(0), where.max(0), scan.spacing_mm, 20)
    ours = preprocessing.prepare_cubes(
        scan.image, pair.mask[None], cube.start[None], cube.stop[None], np.float32(scan.window), 16
    )
    np.testing.assert_allclose(pairs.views(pair, scan).seen, ours, atol=1e-4)
    z = where[0, 2]
    sight = pairs.sight._replace(kind="slices", size=32)
    found = stream.dataclasses.replace(pairs, sight=sight).views(pair, scan)
    z = np.flatnonzero(pair.mask.any((0, 1)))[0]
    cut = (scan.image[::-1, ::-1, z].T, pair.mask[::-1, ::-1, z].T)
    ours = preprocessing.prepare(*cut, size=32, window=scan.window)
    np.testing.assert_allclose(found.seen[0], ours, atol=1e-4)


def stop_after(step, patch):
    """Ask the run to stop when it reads the batch of that step."""
    batches = stream.batches

    def stop(source, start_step, *reading):
        for number, batch in enumerate(batches(source, start_step, *reading), start_step + 1):
            if number == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    patch.setattr(stream, "batches", stop)


def test_it_resumes_bit_for_bit(graded, tmp_path, monkeypatch):
    """Stopped while its fourth batch is read, the same command ends with every array of the state as a run that was not."""
    _, calm, config = graded
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(Preempted):
            job.run(config, str(tmp_path))
    with pytest.raises(FileError, match="its training has not ended"):
        trained.load(tmp_path)
    job.run(config, str(tmp_path))
    assert kill_test.compare(calm, tmp_path) == []
    assert files.read_json(calm / "sentinel.json") == files.read_json(tmp_path / "sentinel.json")


def test_two_devices_train_as_one(graded, store, tmp_path):
    """Sums in another order: equal but for rounding."""
    case, one, _ = graded
    two = recipe(store, case, **{"sentinel.held_out_organs": ("liver", "spleen"), "mesh.data": 2})
    job.run(two, str(tmp_path))
    params = [restore_params(workdir / "checkpoints", "latest")[0] for workdir in (one, tmp_path)]
    losses = [
        [row["train/loss"] for row in rows(workdir) if "train/loss" in row] for workdir in (one, tmp_path)
    ]
    np.testing.assert_allclose(*losses, rtol=2e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.02), *params)


def test_an_evaluation_on_another_store_repeats_itself(graded, store, tmp_path):
    _, workdir, _ = graded
    config = recipe(store, "evaluate", **{"sentinel.grader": str(workdir)})
    sentinel_evaluate.run(config, str(tmp_path))
    found = files.read_json(tmp_path / sentinel_evaluate.FILE)
    assert found["masks"] >= 18 and found["digest"] == trained.load(workdir).digest
    assert (tmp_path / "report" / "sentinel.png").is_file()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"augment": ("noise",)}, ConfigError, "config.augment: 'noise'"),
        ({"data.contrasts": ()}, ConfigError, "looks at one contrast; choose from"),
        ({"data.val_split": ""}, ConfigError, "nobody is held out"),
        ({"data.organs": ("tail",)}, ConfigError, "config.data.organs: 'tail' is not in 'manual'"),
        ({"sentinel.held_out_organs": ("tail",)}, ConfigError, "'tail' is not in 'manual'"),
        ({"sentinel.embeddings": "learned", "sentinel.held_out_organs": ("liver",)}, ConfigError, "learned embeddings know"),
        ({"sentinel.embeddings": "clip.npz"}, FileError, "clip.npz: no such file"),
        ({"sentinel.modality": "PET"}, ConfigError, "config.sentinel.modality: 'PET' is unknown"),
        ({"sentinel.kinds": ("empty",)}, ConfigError, "'empty' is no error to learn from"),
        ({"sentinel.kinds": ("wrong_organ",)}, ConfigError, "always leave nothing"),
        ({"train.accumulate": 2}, ConfigError, "set config.sentinel.pairing=neighbours"),
        ({"train.best": ("val/dice", "max")}, ConfigError, "no 'val/dice'; choose one of val/r"),
        ({"sentinel.checkpoints": "nowhere"}, FileError, "nowhere/checkpoints: no such folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_field(store, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        job.run(recipe(store, **changes), str(tmp_path))
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_masks_that_a_trainings_checkpoints_draw_are_predicted_once(store, tmp_path, monkeypatch, capsys):
    """Every kept checkpoint on every training subject, with its true Dice; some pairs are such masks."""
    teacher = tmp_path / "teacher"
    train.run(tiny_teacher(store), str(teacher))
    assert steps_of(teacher / "checkpoints") == [1, 2]
    config = recipe(
        store, **{"sentinel.checkpoints": str(teacher), "sentinel.predicted": 1.0, "train.steps": 2}
    )
    job.run(config, str(tmp_path / "grader"))
    folder = tmp_path / "grader" / "predictions"
    names = ["0_step_00000001", "0_step_00000002"]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == names
    opened, segmenter = Store.open(store), Segmenter.load(teacher, "latest")
    made = Predictions(folder, tuple(names))
    row = opened.rows["p1"]
    labels = segmenter.predict(Volume(opened.read("p1", "image"), np.asarray(row.affine))).volume.array
    np.testing.assert_array_equal(made.read(names[1], "p1"), labels)
    table = files.read_jsonl(folder / "dice.jsonl")
    assert len(table) == sum(len(opened.present(f"p{n}", "manual")) for n in range(4)) * 2
    organ = next(
        row for row in table if row["subject"] == "p1" and row["checkpoint"] == names[1] and row["dice"]
    )
    true = opened.read("p1", "label/manual") == organ["organ"]
    np.testing.assert_allclose(organ["dice"], degradation.dice(labels == organ["organ"], true))
    pairs = setup.open_setup(config, "").pairs("train", 0, made)
    scan = pairs.scan("p1")
    found = [pair for pair in (pairs.pair("p1", n, scan) for n in range(60)) if pair.kind == stream.PREDICTED]
    assert found and all(pair.mask.any() for pair in found)
    assert all(pair.dice == degradation.dice(pair.mask, scan.labels == pair.label) for pair in found)
    monkeypatch.setattr(Segmenter, "predict", None)  # nothing is predicted again
    capsys.readouterr()
    job.run(config, str(tmp_path / "grader"))
    assert "label maps predicted" not in capsys.readouterr().err


def tiny_teacher(store):
    """A segmentation network of the same labels, of which two checkpoints are kept."""
    config = common.base().copy_and_resolve_references()
    config = settings.with_network(config, [f"--config.model.name={tiny_network.__name__}"])
    return settings.with_fields(config, {
        "store": str(store), "label": "manual", "data.val_split": "", "data.crop": (16, 16, 16), "data.batch_size": 2,
        "data.flagged": "off", "data.threads": 2, "augment": (), "mesh.data": 1, "optimizer.warmup_steps": 0,
        "train.steps": 2, "train.log_every": 1, "train.checkpoint_every": 1, "model.in_channels": 4,
        "model.out_channels": 73,
    })  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("full_optimization")
def test_it_learns_to_grade(tmp_path):
    """A small network on cubes of 16 voxels: r of held-out subjects passes 0.5, which the untrained one is far from."""
    tiny_sentinel.write_store(tmp_path / "store", subjects=12, held_out=4)
    organs = (
        "liver",
        "spleen",
        "stomach",
        "heart",
        "urinary_bladder",
        "femur_left",
        "femur_right",
        "hip_left",
        "hip_right",
    )
    changes = {
        "data.organs": organs, "data.batch_size": 24, "optimizer.learning_rate": 2e-3, "optimizer.warmup_steps": 20,
        "train.steps": 400, "train.eval_every": 100, "train.checkpoint_every": 400, "train.log_every": 100,
        "sentinel.val_pairs": 160, "model.hidden": 16, "model.context": 64,
        "model.network_fields": {
            "n_stages": 3, "features_per_stage": (8, 16, 32), "strides": (1, 2, 2), "n_conv_per_stage": 1,
        },
    }  # fmt: skip
    job.run(recipe(tmp_path / "store", **changes), str(tmp_path / "run"))
    found = files.read_json(tmp_path / "run" / "sentinel.json")
    assert found["scores"]["r"] > 0.5 and found["scores"]["roc_area"] > 0.7
    assert found["covered"] > 0.75  # asked: 0.9, of 80 masks of two subjects


@pytest.mark.parametrize(
    "said, width", [("measured", 7), ("one_hot", 73), ("taxonomy+measured", 24), ("learned", 32)]
)
def test_embeddings_of_every_kind(store, said, width):
    """`measured` looks at the training subjects; partners are found with any of them."""
    made = setup.open_setup(recipe(store, **{"sentinel.embeddings": said}), "")
    assert made.model.num_classes_embedding == width and made.model.learned_classes == (
        73 if said == "learned" else 0
    )
    source = made.batches(recipe(store), made.pairs("train", 0))
    assert sorted(source[0]["partner"].tolist()) == list(range(8))  # a permutation
    assert np.isfinite(made.vectors).all() and len(made.vectors) == 73


def test_the_taxonomy_is_not_taken_for_labels_of_others(tmp_path):
    names = {"manual": {1: "head", 2: "tail"}}
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[2:8, 2:8, 2:8], labels[9:14, 9:14, 4:9] = 1, 2
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(4):
            image = np.random.default_rng(number).gamma(2, 50, (16, 16, 16, 1)).astype(np.int16)
            writer.write(
                f"p{number}", image, np.eye(4), {"manual": labels}, source=str(number), contrasts=("t1",),
                split="train" if number < 3 else "val", description=Description(label_names=names),
            )  # fmt: skip
    changes = {"data.contrasts": (), "sentinel.held_out_organs": ("tail",)}
    with pytest.raises(ConfigError, match=r"where id 1 is 'spleen', not 'head'; take measured or one_hot"):
        setup.open_setup(recipe(tmp_path / "store", **changes), "")
    made = setup.open_setup(recipe(tmp_path / "store", **changes, **{"sentinel.embeddings": "measured"}), "")
    assert made.unseen == (2,) and made.contrast == "t1" and made.pairs("train", 0).there("p0") == (1,)
