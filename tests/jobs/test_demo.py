"""The whole loop, small: every stage on the real path, twice with the same numbers."""

import json
import pathlib

import pytest

from tests.conftest import ROOT
from ukbob_jax import jobs, settings
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.jobs import demo

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = {
    "source.shape": (32, 32, 64),
    "source.count": 14,
    "source.splits": {"val": 1},
    "source.corrupted_fraction": 1.0,
    "data.crop": (32, 32, 32),
    "data.batch_size": 1,
    "data.threads": 2,
    "model.depths": (1, 1, 1, 1),
    "model.window_size": (2, 2, 2),
    "optimizer.warmup_steps": 1,
    "train.steps": 4,
    "train.log_every": 2,
    "train.eval_every": 4,
    "train.checkpoint_every": 2,
    "mesh.data": 1,
    "evaluate.subjects": 1,
    "evaluate.scanners": ("noise",),
    "inference.overlap": 0.25,
    "inference.batch": 2,
}


def recipe(workdir: pathlib.Path):
    arguments = [f"--config={ROOT}/configs/swin_bob.py:demo", f"--workdir={workdir}"]
    config, _ = settings.parse(arguments, usage="")
    return settings.resolve(settings.with_fields(config, SMALL), workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("demo")
    demo.run(recipe(workdir), str(workdir))
    return workdir


def test_writes_a_report_with_every_section_and_picture(finished):
    page = (finished / "report" / "index.html").read_text()
    for title in ("Cohort", "Label filter (SOLF)", "Training", "Held-out scans", "Other scanners"):
        assert f">{title}</h2>" in page
    assert "http://" not in page and "https://" not in page  # opens without a network
    pictures = {path.name for path in (finished / "report").glob("*.png")}
    expected = {
        "cohort",
        "solf_scatter",
        "solf_precision_recall",
        "curves",
        "organ_dice",
        "scanner_clean",
        "scanner_noise",
    }
    assert {f"{name}.png" for name in expected} <= pictures
    assert page.count("data:image/png;base64,") == len(pictures)
    assert 'href="solf/index.html"' in page and (finished / "report" / "solf" / "index.html").is_file()


def test_trains_the_same_number_of_steps_with_and_without_the_filter(finished):
    for folder in (finished, finished / demo.WITHOUT_SOLF):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert max(row["step"] for row in rows) == SMALL["train.steps"]


def test_leaves_a_network_for_inference(finished):
    segmenter = Segmenter.load(finished)
    assert segmenter.card.architecture == "swin_unetr" and segmenter.model.feature_size == 12
    assert segmenter.card.window == (32, 32, 32) and "spleen" in segmenter.card.labels.values()


def test_scores_every_scanner_with_and_without_adaptation(finished):
    for name in ("clean", "noise"):
        rows = [
            json.loads(line) for line in (finished / "evaluation" / f"{name}.jsonl").read_text().splitlines()
        ]
        assert {row["method"] for row in rows} == {"off", "etta"}
        scored = [row["dice"] for row in rows if row["dice"] is not None]
        assert len(scored) > 30 and all(0 <= dice <= 1 for dice in scored)
        assert len(list((finished / "evaluation" / name).glob("*_off.nii.gz"))) == SMALL["evaluate.subjects"]


def test_tests_on_bodies_that_no_training_subject_has(finished):
    config = recipe(finished)
    training = range(config.source.first, config.source.first + config.source.count)
    for scanner in demo.tests(config).values():
        assert scanner["source.first"] not in training


def test_running_again_changes_no_number_and_trains_nothing(finished):
    before = (finished / "metrics.jsonl").read_bytes(), (finished / "evaluation" / "clean.jsonl").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in (finished / "stores").rglob("done.json")}
    demo.run(recipe(finished), str(finished))
    assert before == (
        (finished / "metrics.jsonl").read_bytes(),
        (finished / "evaluation" / "clean.jsonl").read_bytes(),
    )
    assert stamps == {path: path.stat().st_mtime_ns for path in (finished / "stores").rglob("done.json")}


def test_finds_every_job_by_name():
    for name in jobs.JOBS:
        assert callable(jobs.find(name).run)
