"""A network that no file of the package knows walks through everything: the proof that the seams hold.

`tests/tiny_network.py` is one file of a user's own. Only the command line names it.
"""

import pathlib
import shutil

import jax
import nibabel
import numpy as np
import pytest

import ukbob_jax as bob
from tests import tiny_network
from tests.conftest import ROOT
from ukbob_jax import files, jobs, settings
from ukbob_jax.training.checkpoints import restore_params

pytestmark = pytest.mark.usefixtures("quick_compilation")

NETWORK = tiny_network.__name__
ORGANS = ("liver", "spleen")
OVERRIDES = {
    "model.name": NETWORK,
    "model.width": 3,
    "model.out_channels": 0,
    "model.deep_supervision": 1,
    "organs": ORGANS,
    "data.organs": ORGANS,
    "data.crop": (16, 16, 32),
    "data.batch_size": 2,
    "data.flagged": "off",
    "source.shape": (32, 24, 48),
    "source.count": 4,
    "source.splits": {"val": 1, "test": 1},
    "mesh.data": 1,
    "augment": (),
    "optimizer.learning_rate": 0.02,
    "optimizer.warmup_steps": 1,
    "optimizer.layer_decay": 0.9,
    "train.steps": 6,
    "train.log_every": 1,
    "train.eval_every": 3,
    "train.checkpoint_every": 2,
    "train.keep": 3,
    "evaluate.split": "test",
    "evaluate.label": "manual",
    "evaluate.surface": False,
    "evaluate.methods": ("off", "etta"),
}


def recipe(workdir: pathlib.Path, **changes: object):
    """The demo's recipe with another network, as from a command line."""
    arguments = [f"--config={ROOT}/configs/swin_bob.py:demo", f"--config.model.name={NETWORK}"]
    config, _ = settings.parse([*arguments, f"--workdir={workdir}"], usage="")
    return settings.resolve(settings.with_fields(config, {**OVERRIDES, **changes}), workdir)


def run(job: str, workdir: pathlib.Path, **changes: object) -> None:
    jobs.find(job).run(recipe(workdir, **changes), str(workdir))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("seam")
    run("ingest", path)
    run("train", path)
    return path


def test_it_trains_with_losses_at_the_strides_it_says(workdir):
    rows = [row for row in files.read_jsonl(workdir / "metrics.jsonl") if "train/loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


def test_it_resumes_bit_for_bit(workdir, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(workdir, again)
    for step in ("step_00000006", "step_00000004"):
        shutil.rmtree(again / "checkpoints" / step, ignore_errors=True)
    assert (again / "checkpoints" / "step_00000003").is_dir()
    run("train", again, store=str(workdir / "stores" / "cohort"))
    before, after = (restore_params(path / "checkpoints", "latest")[0] for path in (workdir, again))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert (again / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()


def test_it_is_evaluated_with_and_without_adaptation(workdir):
    run("evaluate", workdir)
    rows = files.read_jsonl(workdir / "evaluation" / "test.jsonl")
    assert {(row["method"], row["organ"]) for row in rows} == {
        (method, organ) for method in ("off", "etta") for organ in ORGANS
    }
    scans = {row["method"]: row for row in files.read_jsonl(workdir / "evaluation" / "test.scans.jsonl")}
    assert scans["etta"]["entropy_after"] != scans["etta"]["entropy_before"]  # its affine norms moved


def test_it_segments_a_nifti_in_the_scans_own_space(workdir, tmp_path):
    store = bob.Store.open(workdir / "stores" / "cohort")
    [subject] = store.split("test")
    image = store.read(subject, "image").astype(np.float32)
    bob.write_volume(tmp_path / "scan.nii.gz", bob.Volume(image, np.asarray(store.rows[subject].affine)))
    segmenter = bob.Segmenter.load(workdir)
    assert segmenter.card.architecture == NETWORK and segmenter.card.fields["width"] == 3
    labels = segmenter(tmp_path / "scan.nii.gz", adapt=True)
    bob.write_volume(tmp_path / "labels.nii.gz", labels)
    written, scan = nibabel.load(tmp_path / "labels.nii.gz"), nibabel.load(tmp_path / "scan.nii.gz")
    assert written.shape == scan.shape[:3] and np.array_equal(written.affine, scan.affine)
    assert set(np.unique(written.dataobj)) <= {0, 1, 2}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_its_weights_are_exported_and_imported(workdir, tmp_path, suffix):
    segmenter = bob.Segmenter.load(workdir)
    path = tmp_path / f"weights{suffix}"
    bob.weights.save(path, segmenter.params, segmenter.model, card=segmenter.card)
    loaded = bob.weights.load(path, segmenter.model)
    names = bob.weights.to_torch(loaded, segmenter.model)
    assert "backbone.fine.weight" in names and "seg.weight" in names
    trained = {name: value for name, value in segmenter.params.items() if not name.startswith("aux_")}
    jax.tree.map(np.testing.assert_array_equal, trained, dict(loaded))


def test_a_new_start_takes_its_parts_and_freezes_others(workdir, tmp_path):
    changes = {"init": str(workdir), "init_new": ("head",), "optimizer.frozen": "^fine", "train.steps": 2}
    run("train", tmp_path, store=str(workdir / "stores" / "cohort"), **changes)
    before, after = (restore_params(path / "checkpoints", "best")[0] for path in (workdir, tmp_path))
    np.testing.assert_array_equal(
        after["fine"]["kernel"], restore_params(workdir / "checkpoints", "best")[0]["fine"]["kernel"]
    )
    assert not np.array_equal(after["head"]["kernel"], before["head"]["kernel"])
