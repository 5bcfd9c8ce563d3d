"""From a store's images to an encoder that a training on labels starts from."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from configs import common, finetune, pretrain
from tests import tiny_network, tiny_pretraining
from tests.tiny_pretraining import SHAPE, method_of, recipe
from tools import kill_test
from ukbob_jax import networks, phantom, settings, weights
from ukbob_jax.errors import ConfigError, MismatchError, Preempted
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import pretrain as job
from ukbob_jax.jobs import report, train
from ukbob_jax.models.card import ModelCard
from ukbob_jax.models.swin_unetr.network import SwinUNETR
from ukbob_jax.store.schema import ANONYMISATION
from ukbob_jax.store.writer import StoreWriter
from ukbob_jax.training.checkpoint_folder import step_name
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.training.state import PRETEXT

pytestmark = pytest.mark.usefixtures("quick_compilation")

TINY = tiny_network.__name__


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("pretrain") / "store"
    tiny_pretraining.write_store(path, held_out=1)
    return path


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def checkpoint(workdir):
    params, _, meta = restore_params(workdir / "checkpoints", "latest")
    return params, ModelCard.from_json(meta, workdir)


@pytest.fixture(scope="module", params=list(tiny_pretraining.CASES))
def trained(request, store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param)
    job.run(recipe(store, request.param), str(workdir))
    return request.param, workdir


def test_a_method_learns_and_says_what_it_is(trained):
    method, workdir = method_of(trained[0]), trained[1]
    losses = [row["train/loss"] for row in rows(workdir)]
    assert len(losses) == 6 and np.isfinite(losses).all()
    params, card = checkpoint(workdir)
    assert (card.task, card.architecture, card.window) == ("pretraining", TINY, (16, 16, 16))
    assert card.contrasts == tuple(phantom.CONTRASTS) and card.provenance["pretrain"]["method"] == method
    assert (PRETEXT in params) == (method in ("simmim", "s3d", "voco", "swinunetr", "simclr"))
    assert ("head" in params) == (method in ("mae", "s3d", "genesis", "fusion", "rasd"))


def test_a_pretrained_network_labels_nothing(trained):
    with pytest.raises(MismatchError, match="is of a pre-training, which knows no labels"):
        Segmenter.load(trained[1], "latest")


def test_labels_are_learnt_from_the_encoder_it_leaves(trained, store, tmp_path):
    """The encoder's numbers are the checkpoint's, the head starts afresh, and the coverage is told."""
    method, workdir = trained
    params, _ = checkpoint(workdir)
    model = tiny_network.Tiny(4, 73)
    loaded = weights.read(workdir, model, which="latest")
    for name in ("fine", "coarse", "fine_norm", "coarse_norm"):
        jax.tree.map(np.testing.assert_array_equal, loaded.params[name], params[name])
    assert set(loaded.report.new) == {"seg.weight", "seg.bias"} and len(loaded.report.matched) == 8
    assert bool(loaded.report.left_out) == (PRETEXT in params)
    if method != "simmim":
        return
    config = common.base().copy_and_resolve_references()
    config = settings.with_network(config, [f"--config.model.name={TINY}"])
    tuned = {
        "store": str(store), "label": "manual", "data.val_split": "", "data.crop": (16, 16, 16), "data.batch_size": 2,
        "data.flagged": "off", "data.threads": 2, "augment": (), "mesh.data": 1, "optimizer.warmup_steps": 0,
        "train.steps": 1, "train.log_every": 1, "init": str(workdir),
    }  # fmt: skip
    train.run(settings.with_fields(config, tuned), str(tmp_path))
    report = (tmp_path / "init.txt").read_text()
    assert "matched: 8" in report and "new: 2\n  seg.bias" in report and "pretext.token" in report


def stop_after(step, patch):
    """Ask the run to stop when it reads the batch of that step."""
    for data in (job.TrainingData, job.MadeData):
        patch.setattr(data, "batches", stopping(data.batches, step))


def stopping(batches, step):
    def stop(self, config, start_step, **crops):
        for number, batch in enumerate(batches(self, config, start_step, **crops), start_step + 1):
            if number == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    return stop


def test_it_resumes_bit_for_bit(trained, store, tmp_path, monkeypatch):
    """Stopped while its fourth batch is read, the same command ends with every array of the state as a run that was not."""
    case, calm = trained
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(Preempted):
            job.run(recipe(store, case), str(tmp_path))
    assert 0 < restore_params(tmp_path / "checkpoints", "latest")[2]["step"] < 6
    job.run(recipe(store, case), str(tmp_path))
    assert kill_test.compare(calm, tmp_path) == []
    params = [checkpoint(workdir)[0] for workdir in (calm, tmp_path)]
    jax.tree.map(np.testing.assert_array_equal, *params)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_bit_for_bit_the_same(capfd):
    """Processes of the recipe, with the teacher's running average in their state."""
    seed = os.getpid()  # other moments in every test run; a failure says which
    code = kill_test.main(["--kills", "2", "--seed", str(seed), "--pretrain", "voco_authors"])
    assert code == 0, f"--seed {seed}\n{capfd.readouterr()}"


def test_a_sawtooth_resumes_across_its_border_and_keeps_the_encoder_until_then(store, tmp_path, monkeypatch):
    """Stopped when the decoder alone has learnt, the same command ends as a run that was not."""
    job.run(recipe(store, "mae", **{"train.steps": 2}), str(tmp_path / "mae"))
    config = settings.with_network(
        finetune.get_config("sawtooth").copy_and_resolve_references(), [f"--config.model.name={TINY}"]
    )
    config = settings.with_fields(config, {
        "store": str(store), "data.crop": (16, 16, 16), "data.threads": 2, "augment": (), "mesh.data": 1,
        "optimizer.decoder_steps": 2, "optimizer.warmup_steps": 1, "optimizer.learning_rate": 0.02, "train.steps": 4,
        "train.log_every": 1, "init": str(tmp_path / "mae"),
    })  # fmt: skip
    train.run(config, str(tmp_path / "calm"))
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(Preempted):
            train.run(config, str(tmp_path / "stopped"))
    began, border = (
        restore_params(tmp_path / name / "checkpoints", "latest")[0] for name in ("mae", "stopped")
    )
    for name in ("fine", "coarse", "fine_norm", "coarse_norm"):
        jax.tree.map(np.testing.assert_array_equal, border[name], began[name])
    train.run(config, str(tmp_path / "stopped"))
    whole, again = (
        restore_params(tmp_path / name / "checkpoints", "latest")[0] for name in ("calm", "stopped")
    )
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert np.any(whole["fine"]["kernel"] != began["fine"]["kernel"])
    assert rows(tmp_path / "stopped") == rows(tmp_path / "calm")


@pytest.mark.parametrize("variant", ["warmup", "sawtooth"])
def test_fine_tunings_have_the_benchmarks_numbers(variant):
    config = finetune.get_config(variant)
    fields = config.optimizer
    assert (fields.name, fields.learning_rate, fields.weight_decay, fields.momentum) == (
        "sgd",
        1e-3,
        3e-5,
        0.99,
    )
    assert (fields.warmup_steps, config.train.steps, config.data.crop) == (12_500, 250_000, (160,) * 3)
    assert fields.decoder_steps == (12_500 if variant == "sawtooth" else 0)


PROBED = {"probe.every": 2, "probe.label": "manual", "probe.subjects": 1, "probe.voxels": 3}


@pytest.fixture(scope="module")
def probed(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("probed")
    job.run(recipe(store, "mae", **PROBED), str(workdir))
    return workdir


def test_probes_come_before_between_and_after_steps_and_move_no_number(probed, store, tmp_path):
    config = recipe(store, "mae")
    job.run(config, str(tmp_path))
    lines = rows(probed)
    asked = [row for row in lines if "probe/knn" in row]
    assert [row["step"] for row in asked] == [0, 2, 4, 6]
    assert {"step", "probe/knn", "probe/linear", "probe/chance"} == set(asked[0])
    assert all(0 <= row["probe/linear"] <= 1 for row in asked) and asked[0] != {**asked[-1], "step": 0}
    assert [row for row in lines if row not in asked] == rows(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, checkpoint(probed)[0], checkpoint(tmp_path)[0])
    assert restore_params(probed / "checkpoints", "best")[2]["step"] == 6  # probes choose no checkpoint
    kept = sorted(path.name for path in (probed / "checkpoints").iterdir() if path.is_dir())
    assert kept == [step_name(4), step_name(6)]


@pytest.mark.parametrize("step", [1, 5])
def test_a_resume_repeats_and_misses_no_probe(probed, store, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        with pytest.raises(Preempted):
            job.run(recipe(store, "mae", **PROBED), str(tmp_path))
    job.run(recipe(store, "mae", **PROBED), str(tmp_path))
    assert rows(tmp_path) == rows(probed)
    jax.tree.map(np.testing.assert_array_equal, checkpoint(tmp_path)[0], checkpoint(probed)[0])
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == [f"rebuilt_{n:08d}.png" for n in (0, 2, 4, 6)]
    for name in names:
        assert (tmp_path / "report" / name).read_bytes() == (probed / "report" / name).read_bytes()


def test_killed_before_its_first_checkpoint_a_run_asks_once_about_its_start(
    probed, store, tmp_path, monkeypatch
):
    def broken(self, config, start_step, **crops):
        raise OSError("gone")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(job.watch, "_painter", lambda *args: None)
        patch.setattr(job.TrainingData, "batches", broken)
        with pytest.raises(OSError, match="gone"):
            job.run(recipe(store, "mae", **PROBED), str(tmp_path))
    assert [row["step"] for row in rows(tmp_path)] == [0]
    job.run(recipe(store, "mae", **PROBED), str(tmp_path))
    assert rows(tmp_path) == rows(probed)


def test_probes_on_two_devices_are_those_on_one(store, tmp_path):
    found = []
    for devices in (1, 2):
        workdir = tmp_path / str(devices)
        config = recipe(
            store, "mae", **{**PROBED, "mesh.data": devices, "mesh.fsdp": devices, "train.steps": 2}
        )
        job.run(config, str(workdir))
        found.append([row for row in rows(workdir) if "probe/knn" in row])
    assert found[0][0] == found[1][0]  # of the same untrained network
    for name in ("probe/knn", "probe/linear"):
        assert abs(found[0][1][name] - found[1][1][name]) < 0.1  # rounding may move a voxel


def test_the_page_of_a_pretraining_has_curves_and_pictures(probed, store):
    report.run(recipe(store, "mae", **PROBED), str(probed))
    page = (probed / "report" / "index.html").read_text()
    assert "balanced accuracy" not in page and "k nearest neighbours" in page and "chance" in page
    assert page.count("<img") == 5 and "Step 6. Left to right" in page
    assert (probed / "report" / "pretraining.png").exists()


@pytest.mark.parametrize("method", ["simmim", "s3d", "genesis", "fusion", "swinunetr"])
def test_what_rebuilds_shows_it(store, tmp_path, method):
    """Without labels too."""
    job.run(recipe(store, method, **{"probe.every": 100, "train.steps": 2}), str(tmp_path))
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["rebuilt_00000000.png", "rebuilt_00000002.png"]
    picture = np.asarray(Image.open(tmp_path / "report" / names[1]))
    assert picture.ndim == 3 and picture.shape[1] > 300 and len(np.unique(picture)) > 10
    assert not any("probe" in name for row in rows(tmp_path) for name in row)


def test_a_look_at_nothing_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"config.probe.every: 5, but 'simclr' rebuilds nothing to show"):
        job.run(recipe(store, "simclr", **{"probe.every": 5}), str(tmp_path))


@pytest.mark.parametrize("method", ["mae", "fusion"])
def test_nothing_is_learnt_where_a_store_says_that_voxels_were_anonymised(tmp_path, method):
    """All voxels of a scan: no loss; half of them: that of the rest."""
    image, _ = phantom.subject(0, SHAPE)
    losses = {}
    for name, part in (("none", 0), ("half", SHAPE[0] // 2), ("all", SHAPE[0])):
        mask = np.zeros(SHAPE, np.uint8)
        mask[:part] = 1
        with StoreWriter(tmp_path / name / "store") as writer:
            writer.write(
                "p0", image, phantom.affine(SHAPE), {ANONYMISATION: mask}, source=name, split="train",
                contrasts=phantom.CONTRASTS,
            )  # fmt: skip
        config = recipe(tmp_path / name / "store", method, **{"train.steps": 2, "data.batch_size": 2})
        job.run(config, str(tmp_path / name / "run"))
        losses[name] = rows(tmp_path / name / "run")[0]["train/loss"]
    assert losses["all"] == 0 < losses["none"] != losses["half"] > 0


@pytest.mark.parametrize("method", ["voco", "simclr", "rasd"])
def test_two_devices_equal_one(store, tmp_path, method):
    """Crops lie on both; what compares them compares all."""
    found = []
    for devices in (1, 2):
        job.run(
            recipe(store, method, **{"mesh.data": devices, "train.steps": 2}), str(tmp_path / str(devices))
        )
        found.append([row["train/loss"] for row in rows(tmp_path / str(devices))])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_made_volumes_need_no_store_and_learn_in_passes(tmp_path):
    """Their contrasts are the network's channels; an image of zeros would have no accuracy to gain."""
    changes = {"model.in_channels": 2, "train.steps": 30, "train.accumulate": 2, "augment": ()}
    job.run(recipe("", "rasd", **changes), str(tmp_path))
    _, card = checkpoint(tmp_path)
    assert (
        card.contrasts == ("made_0", "made_1") and card.provenance["store"] == "" and card.spacing_mm is None
    )
    log = rows(tmp_path)
    first, last = (np.mean([row["train/accuracy"] for row in part]) for part in (log[:5], log[-5:]))
    assert last > first


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mae", "simmim", "swinunetr"])
def test_swin_unetr_learns_and_a_training_takes_it(store, tmp_path, method):
    """In bfloat16, with recomputation, on two devices."""
    fields = {"model.feature_size": 12, "model.depths": (1, 1, 1, 1), "model.window_size": (4, 4, 4)}
    more = {
        "model.dtype": "bfloat16",
        "model.remat": True,
        "mesh.data": 2,
        "data.crop": (32, 32, 32),
        "train.steps": 2,
    }
    job.run(recipe(store, method, "swin_unetr", **fields, **more), str(tmp_path))
    assert np.isfinite([row["train/loss"] for row in rows(tmp_path)]).all()
    params, card = checkpoint(tmp_path)
    assert card.fields["dtype"] == "bfloat16"
    model = SwinUNETR(4, 5, 12, (1, 1, 1, 1), window_size=(4, 4, 4), norm="instance_affine")
    loaded = weights.read(tmp_path, model)
    jax.tree.map(np.testing.assert_array_equal, loaded.params["swin"], params["swin"])
    whole = method == "mae"
    assert len(loaded.report.new) == 2 if whole else len(loaded.report.new) > 2
    assert ("decoder5" in params) == whole


@pytest.mark.slow
def test_a_convolutional_network_learns_sparsely_and_a_training_takes_it(store, tmp_path):
    """In bfloat16, with recomputation, on two devices: encoder and decoder are taken, tokens and their layers left out."""
    network = {
        "n_stages": 3,
        "features_per_stage": (4, 6, 8),
        "kernel_sizes": (3, 3, 3),
        "strides": (1, 2, 2),
    }
    network |= {"n_blocks_per_stage": (1, 1, 1), "n_conv_per_stage_decoder": (1, 1)}
    fields = {f"model.{name}": value for name, value in network.items()}
    more = {"model.dtype": "bfloat16", "model.remat": True, "mesh.data": 2, "train.steps": 3}
    job.run(recipe(store, "s3d", "resenc_unet", **fields, **more), str(tmp_path))
    losses = [row["train/loss"] for row in rows(tmp_path)]
    assert len(losses) == 3 and np.isfinite(losses).all()
    params, _ = checkpoint(tmp_path)
    assert {f"token_{i}" for i in range(3)} <= set(params[PRETEXT])
    loaded = weights.read(tmp_path, networks.build("resenc_unet", 4, 5, **network), which="latest")
    for name in ("stem", "encoder_0", "encoder_2", "decoder_0"):
        jax.tree.map(np.testing.assert_array_equal, loaded.params[name], params[name])
    assert all("seg_layers" in name for name in loaded.report.new), loaded.report.new
    assert len(loaded.report.left_out) == len(jax.tree.leaves(params[PRETEXT]))


@pytest.mark.parametrize(
    "method, changes, named",
    [
        ("mae", {"pretrain.method": "maee"}, "config.pretrain.method: 'maee' is unknown"),
        ("mae", {"pretrain.method": "fusion"}, "config.pretrain: 'fusion' has no field 'block'"),
        ("mae", {"label": "manual"}, "config.label: 'manual', but pre-training looks at images alone"),
        ("mae", {"init": "w.pt"}, "config.init: 'w.pt', but pre-training starts afresh"),
        ("mae", {"pretrain.ratio": 1.5}, "config.pretrain.ratio: 1.5"),
        ("mae", {"pretrain.block": 16}, "config.pretrain.ratio: 0.75 hides none of the 1 whole blocks"),
        ("simmim", {"pretrain.ratio": 0.01}, "config.pretrain.ratio: 0.01 hides none of the 64 whole blocks"),
        ("s3d", {"pretrain.block": 20}, r"config.pretrain.block: blocks of \(20, 20, 20\) voxels do not fit"),
        (
            "simclr",
            {"data.batch_size": 1},
            "config.data.batch_size: 1, but 'simclr' compares .* take 2 or more",
        ),
        ("swinunetr", {"data.batch_size": 1}, "config.data.batch_size: 1, but 'swinunetr' compares"),
        (
            "voco",
            {"data.batch_size": 1, "pretrain.form": "authors", "train.ema": 0.9},
            "config.data.batch_size: 1, but 'voco' compares",
        ),
        (
            "mae",
            {"data.val_split": "val"},
            "config.data.val_split: 'val', but pre-training validates on no labels",
        ),
        ("mae", {"model.in_channels": 2}, "config.model.in_channels is 2, but the store has 4 contrasts"),
        (
            "fusion",
            {"pretrain.smallest": 20, "pretrain.largest": 30},
            "config.pretrain.smallest: 20 voxels do not fit",
        ),
        ("fusion", {"train.accumulate": 8, "data.batch_size": 8, "pretrain.form": "nnssl"}, "whole pairs"),
        (
            "rasd",
            {"augment": ("noise", "affine")},
            "config.augment: 'affine' is not one of gamma, .*'rasd' compares",
        ),
        (
            "rasd",
            {"pretrain.fewest": 7},
            r"config.pretrain.fewest: 7 is not in 2..6 \(config.pretrain.most\)",
        ),
        ("simclr", {"train.accumulate": 2}, "config.train.accumulate: 2, but 'simclr' compares all"),
        ("genesis", {"data.crop": (16, 12, 16)}, r"config.data.crop: \(16, 12, 16\) has a side below 14"),
        (
            "voco",
            {"pretrain.grid": (3, 2, 1)},
            r"\(16, 16, 16\) voxels do not divide into config.pretrain.grid",
        ),
        ("voco", {"pretrain.form": "authors"}, "config.train.ema: 0, but form 'authors' has a teacher"),
        ("swinunetr", {"data.crop": (16, 32, 16)}, r"\(16, 32, 16\) is not square in its axes \(0, 1\)"),
        ("simmim", {"data.crop": (16, 16, 15)}, r"config.data.crop: \(16, 16, 15\) voxels are no multiple"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_field(store, tmp_path, method, changes, named):
    with pytest.raises(ConfigError, match=named):
        job.run(recipe(store, method, **changes), str(tmp_path))
    assert not (tmp_path / "checkpoints").exists()


def test_every_variant_is_a_recipe_with_the_benchmarks_numbers():
    for method in pretrain.VARIANTS:
        config = pretrain.get_config(method)
        assert (config.pretrain.method, config.label, config.train.steps) == (method, "", 250_000)
        assert config.optimizer.warmup_steps == 12_500
    made = pretrain.get_config("rasd")
    assert (made.store, made.augment, made.data.batch_size, made.pretrain.temperature) == ("", (), 4, 0.1)
    assert (made.pretrain.fewest, made.pretrain.most, made.pretrain.finest, made.pretrain.coarsest) == (
        4,
        32,
        2,
        24,
    )
    sparse = pretrain.get_config("s3d")
    assert (sparse.pretrain.block, sparse.pretrain.ratio, sparse.data.batch_size) == (16, 0.75, 8)
    assert pretrain.get_config().pretrain.ratio == 0.75 and pretrain.get_config().data.crop == (160, 160, 160)
