"""The experiments' scripts, on cohorts of a few voxels."""

import importlib.util
import json
import pathlib
from types import ModuleType

import numpy as np
import pytest

from tests.conftest import ROOT
from ukbob_jax.quality import solf
from ukbob_jax.quality.measures import OrganMeasures


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / "solf" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cohort() -> tuple[OrganMeasures, np.ndarray]:
    """60 subjects with 6 classes, some labels far off in all three measures."""
    rng = np.random.default_rng(0)
    wrong = rng.random((60, 6)) < 0.1
    wrong[:, 0] = False
    far = np.where(wrong, rng.uniform(0.1, 0.3, wrong.shape), 1.0)
    return (
        OrganMeasures(
            voxels=rng.integers(50, 90, wrong.shape),
            volume_mm3=np.ones(wrong.shape),
            surface_mm2=np.ones(wrong.shape),
            body_fraction=rng.lognormal(-4, 0.1, wrong.shape) * far,
            sphericity=rng.uniform(0.6, 0.7, wrong.shape) * far,
            eccentricity=np.sqrt(1 - rng.uniform(0.3, 0.4, wrong.shape) * far),
        ),
        wrong,
    )


def test_detection_tells_what_is_found_of_every_kind(tmp_path, capsys):
    detect = script("detect")
    path = tmp_path / "detect.json"
    detect.main(["--subjects", "24", "--shape", "32", "32", "64", "--shares", "0.1", "--output", str(path)])
    [found] = json.loads(path.read_text())["noise"].values()
    assert found["planted"] > 40 and set(found["auc"]) == {*detect.FEATURES, "two of three"}
    assert set(found["auc"]["sphericity"]) == {"all", *detect.label_errors.KINDS}
    assert found["auc"]["two of three"]["all"] > 0.75
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert "percentile 2: precision" in capsys.readouterr().out


def test_the_area_is_the_share_of_pairs_in_order():
    detect, rng = script("detect"), np.random.default_rng(0)
    positive, negative = rng.integers(0, 9, 40), rng.integers(0, 7, 60)
    pairs = np.sign(positive[:, None] - negative[None, :])
    assert detect.area(positive, negative) == pytest.approx((pairs + 1).mean() / 2)


def test_every_arm_leaves_out_what_its_name_says():
    curation, (measures, wrong) = script("curation"), cohort()
    flagged = {arm: curation.ignored(arm, 0, measures, wrong) for arm in curation.ARMS}
    assert not flagged["all"].any() and (flagged["oracle"] == wrong).all()
    assert flagged["random"].sum() == flagged["solf_2"][:, 1:].sum() > 0
    assert (flagged["random"] != curation.ignored("random", 1, measures, wrong)).any()
    assert (flagged["robust"] & wrong).sum() > 0.9 * wrong.sum()
    assert (flagged["solf_5"] >= flagged["solf_1"]).all()
    assert flagged["volume"].sum() == solf.outside(measures, solf.fit(measures, 2.0))[..., 0].sum()


@pytest.mark.slow
def test_curation_resumes_and_counts_what_it_left_out(tmp_path, monkeypatch):
    curation = script("curation")
    arguments = [
        "--workdir",
        str(tmp_path),
        "--levels",
        "0.3",
        "--seeds",
        "1",
        "--subjects",
        "12",
        "--tests",
        "1",
    ]
    arguments += ["--steps", "2", "--arms", "all", "oracle"]
    curation.main([*arguments, "--minutes", "0"])
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == []
    curation.main(arguments)
    rows = {row["arm"]: row for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert rows["all"]["ignored"] == 0 and rows["oracle"]["ignored"] == rows["oracle"]["wrong"] > 0
    monkeypatch.setattr(curation, "one", None)  # would fail
    before = pathlib.Path(tmp_path / "results.json").read_bytes()
    curation.main(arguments)
    assert pathlib.Path(tmp_path / "results.json").read_bytes() == before
