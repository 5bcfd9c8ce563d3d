import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from configs import common
from tests.inference import checkpoint
from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, InputError, SomeFailed
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import label
from ukbob_jax.models.card import ModelCard
from ukbob_jax.quality import verdicts
from ukbob_jax.store.reader import Store
from ukbob_jax.store.writer import StoreWriter

SHAPE, AFFINE = (7, 6, 8), np.diag([2.0, 2.0, 3.0, 1.0])
pytestmark = pytest.mark.usefixtures("quick_compilation")

SCRIPT = """
import sys, nibabel, numpy
image = nibabel.load(sys.argv[1])
values = numpy.asanyarray(image.dataobj)
open(sys.argv[3], "a").write("x")
if values.max() == 13:
    sys.exit("bad luck")
nibabel.save(nibabel.Nifti1Image(numpy.where(values > 50, int(sys.argv[4]), 0).astype("uint8"), image.affine), sys.argv[2])
"""


@pytest.fixture
def store(tmp_path) -> Store:
    with StoreWriter(tmp_path / "store") as writer:
        for number in range(3):
            rng = np.random.default_rng(number)
            image = rng.integers(0, 100, (*SHAPE, 3)).astype(np.int16)
            writer.write(
                f"s{number}", image, AFFINE, {"manual": np.zeros(SHAPE, np.uint8)}, source=str(number),
                contrasts=("in_phase", "water", "fat"), attributes={"sex": "F"},
            )  # fmt: skip
    return Store.open(tmp_path / "store")


@pytest.fixture
def config(store, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    made = common.base()
    made.store = store.path

    def change(label_id: int = 5, **fields):
        command = f"{sys.executable} {tmp_path}/script.py {{input}} {{output}} {tmp_path}/calls {label_id}"
        made.labeller.update({"command": command, "contrasts": ("water",), "workers": 2} | fields)
        return made.copy_and_resolve_references()

    return change


def calls(tmp_path) -> int:
    path = tmp_path / "calls"
    return len(path.read_text()) if path.exists() else 0


def test_labels_every_subject_once_and_says_what_made_them(store, config, tmp_path):
    label.run(config(version="1.2"), str(tmp_path))
    label.run(config(version="1.2"), str(tmp_path))
    assert calls(tmp_path) == 3
    found = Store.open(store.path)
    for subject in found.subjects:
        expected = np.where(store.read(subject, "image")[..., 1] > 50, 5, 0)
        np.testing.assert_array_equal(found.read(subject, "label/auto"), expected)
        made_by = found.rows[subject].provenance["auto"]
        assert (made_by["labeller"], made_by["version"], made_by["contrasts"]) == (
            "command",
            "1.2",
            ["water"],
        )
    label.run(config(version="1.3"), str(tmp_path))
    assert calls(tmp_path) == 6


def test_a_subject_that_fails_is_listed_and_tried_again(store, config, tmp_path):
    with StoreWriter(store.path) as writer:
        writer.write(
            "s1",
            np.full((*SHAPE, 3), 13, np.int16),
            AFFINE,
            {},
            source="new",
            contrasts=("in_phase", "water", "fat"),
        )
    with pytest.raises(SomeFailed, match="1 of 3 subjects failed"):
        label.run(config(), str(tmp_path))
    [row] = files.read_jsonl(tmp_path / "failures.jsonl")
    assert (row["subject"], row["stage"]) == ("s1", "label") and "bad luck" in row["reason"]
    with pytest.raises(InputError, match="1 of 1"):
        label.run(config(), str(tmp_path))
    assert calls(tmp_path) == 4


def test_a_model_folder_of_nnunet_is_no_teacher(store, config, tmp_path):
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"^labeller\.workdir: .* no training run.*label\.py:nnunet"):
        label.run(config(kind="teacher", workdir=str(folder)), str(tmp_path))


def test_ids_are_mapped_from_the_labellers_set_and_strange_ones_refused(store, config, tmp_path):
    label.run(config(labels="btcv", label_id=6), str(tmp_path))  # BTCV's liver
    assert set(np.unique(Store.open(store.path).read("s0", "label/auto"))) == {0, anatomy.IDS["liver"]}
    with pytest.raises(InputError, match="label 40 is not in btcv"):
        label.run(config(labels="btcv", label_id=40), str(tmp_path))


def test_contrasts_are_labelled_one_by_one_and_merged(store, config, tmp_path):
    label.run(config(contrasts=("in_phase", "water", "fat"), merge="vote"), str(tmp_path))
    votes = (store.read("s0", "image") > 50).sum(-1)
    np.testing.assert_array_equal(Store.open(store.path).read("s0", "label/auto"), np.where(votes >= 2, 5, 0))
    assert calls(tmp_path) == 9
    label.run(config(contrasts=("fat", "water"), merge="first", name="either"), str(tmp_path))
    either = (store.read("s0", "image")[..., 1:] > 50).any(-1)
    np.testing.assert_array_equal(Store.open(store.path).read("s0", "label/either"), np.where(either, 5, 0))


def test_shares_label_the_store_together(store, config, tmp_path):
    for process in range(2):
        label.run(config(process=process, processes=2), str(tmp_path))
    assert calls(tmp_path) == 3
    assert all("auto" in row.labels for row in Store.open(store.path).rows.values())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "manual"}, "'manual' was not made by a labeller"),
        ({"contrasts": ()}, "choose from in_phase, water, fat"),
        ({"contrasts": ("T2",)}, r"labeller.contrasts: s0 has contrasts .* not \['T2'\]"),
        ({"merge": "magic"}, "vote, first, rules"),
        ({"merge": "rules", "contrasts": ("fat", "in_phase")}, "needs the contrast 'water'"),
        ({"kind": "magic"}, "command, teacher, nnunet"),
        ({"workers": 0}, "must be at least 1"),
        ({"water_only": ("brain",)}, "'brain' is not a structure"),
        ({"labels": "magic"}, "label set 'magic' is not known"),
        ({"process": 2}, "process 2 of 1"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_any_call(config, tmp_path, fields, words):
    with pytest.raises(ConfigError, match=words):
        label.run(config(**fields), str(tmp_path))
    assert calls(tmp_path) == 0


HANGS = """
import os, sys, time
print(os.getpid(), os.path.dirname(sys.argv[1]), file=open(sys.argv[3], "a"))
time.sleep(300)
"""


@pytest.mark.parametrize(
    ("number", "code", "words"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "asked to stop")]
)
def test_a_job_that_is_stopped_leaves_no_program_and_no_copy_of_a_scan(store, tmp_path, number, code, words):
    (tmp_path / "hangs.py").write_text(HANGS)
    command = f"{sys.executable} {tmp_path}/hangs.py {{input}} {{output}} {tmp_path}/running"
    job = subprocess.Popen(
        [
            sys.executable, "-m", "ukbob_jax.main", "--config=configs/label.py", f"--workdir={tmp_path / 'w'}",
            f"--config.store={store.path}", f"--config.labeller.command={command}",
            '--config.labeller.contrasts=("water",)', "--config.labeller.workers=2",
        ],
        stderr=subprocess.PIPE, text=True,
        # a test run in the background of a shell ignores SIGINT, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    running = tmp_path / "running"
    while not running.exists() or running.read_text().count("\n") < 2:
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.1)
    job.send_signal(number)
    _, told = job.communicate(timeout=30)  # the programs would go on for 300 s
    assert job.returncode == code and words in told
    rows = [line.split(" ", 1) for line in running.read_text().splitlines()]
    assert len(rows) == 2  # the third subject is not begun
    for process, folder in rows:
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)
        assert not pathlib.Path(folder).exists()


class Threshold(nn.Module):
    """Spleen (class 1) above half of the window."""

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        kernel = lambda *_: jnp.array([[0.0, 100.0]])  # noqa: E731
        return nn.Dense(2, name="out", kernel_init=kernel, bias_init=lambda *_: jnp.array([0.0, -50.5]))(x)


@pytest.mark.parametrize("contrasts", [(), ("in_phase", "water", "fat")])
def test_a_teacher_labels_one_contrast_or_the_mean_of_several(
    store, config, tmp_path, monkeypatch, contrasts
):
    facts = {"labels": {0: "background", 1: "spleen"}, "normalize": "window:0:100", "contrasts": ("water",)}
    card = ModelCard("tests.threshold", {}, window=(8, 8, 8), provenance={"store": "of the teacher"}, **facts)
    params = Threshold().init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    monkeypatch.setattr(label.Segmenter, "load", lambda workdir, **_: Segmenter(Threshold(), params, card))
    label.run(config(kind="teacher", contrasts=contrasts, name="taught"), str(tmp_path))
    found = Store.open(store.path)
    image = store.read("s0", "image").astype(np.float64)
    chosen = image[..., 1:2] if not contrasts else image
    expected = scipy.special.expit(chosen - 50.5).mean(-1) > 0.5
    np.testing.assert_array_equal(
        found.read("s0", "label/taught"), np.where(expected, anatomy.IDS["spleen"], 0)
    )
    assert found.rows["s0"].provenance["taught"]["network"] == {"store": "of the teacher"}


def test_a_teacher_that_was_trained_further_labels_again_and_the_same_one_does_not(
    store, config, tmp_path, monkeypatch
):
    calls, predict = [], Segmenter.predict
    monkeypatch.setattr(
        Segmenter, "predict", lambda *args, **options: calls.append(1) or predict(*args, **options)
    )
    teacher = tmp_path / "teacher"
    made = config(kind="teacher", name="taught", workdir=str(teacher))

    def labels():
        label.run(made, str(tmp_path))
        return set(np.unique(Store.open(store.path).read("s0", "label/taught")))

    classes = {0: "background", 1: "spleen"}
    checkpoint.save(teacher, classes, step=1, favoured=0)
    assert labels() == {0} and len(calls) == 3
    assert labels() == {0} and len(calls) == 3
    checkpoint.save(teacher, classes, step=2, favoured=1)  # under the same provenance
    assert labels() == {anatomy.IDS["spleen"]} and len(calls) == 6


def test_verdicts_on_labels_of_a_program(store, config, tmp_path):
    from ukbob_jax.jobs import solf

    label.run(config(), str(tmp_path))
    made = config()
    made.solf.update({"min_count": 3, "min_voxels": 0, "epsilon": 0.0})
    solf.run(made, str(tmp_path))
    assert verdicts.flagged_organs(store.path, "auto") == {}
