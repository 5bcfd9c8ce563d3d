"""`ukbob doctor` on this machine, and what it says where something is missing."""

import json

import jax
import pytest

from ukbob_jax import cli
from ukbob_jax.commands import doctor


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("UKBOB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("jax.config.update", lambda *_: None)

    def run(*words):
        assert cli.main(["doctor", *words]) == 0
        return capsys.readouterr().out

    return run


def test_one_screen_tells_what_the_json_holds(call, tmp_path):
    found, text = json.loads(call("--json")), call()
    assert len(text.splitlines()) <= 40
    assert f"jax {jax.__version__}" in text and found["packages"]["jax"] == jax.__version__
    assert f"{len(jax.local_devices())} x {jax.local_devices()[0].device_kind} (cpu)" in text
    assert found["memory"]["free"] > 0 and found["disk"]["here"]["free"] > 0
    assert f"{tmp_path / 'cache'}: 0 programs, 0 MB of 2.0 GB" in text


def test_a_missing_package_is_named_with_the_extra_that_brings_it(call, monkeypatch):
    real = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: "" if name == "highdicom" else real(name) or "1.0")
    lines = {line.split("  ")[0]: line for line in call().splitlines()}
    assert lines["DICOM segmentations out"].endswith("missing  highdicom: pip install 'ukbob-jax[dicom]'")
    assert " ok " in lines["DICOM series in"]


def test_either_of_two_packages_is_enough(monkeypatch):
    feature = doctor.Feature("x", ("a|b", "c"), "extra")
    monkeypatch.setattr(doctor, "version_of", {"b": "2", "c": "3", "a": ""}.get)
    assert doctor.describe(feature) == {"versions": {"b": "2", "c": "3"}, "missing": [], "fix": ""}
    monkeypatch.setattr(doctor, "version_of", {"c": "3", "a": "", "b": ""}.get)
    assert doctor.describe(feature)["missing"] == ["a or b"]


def test_the_extras_are_those_of_the_package():
    import tomllib

    from tests.conftest import ROOT

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    written = {  # where an extra names a package through another one
        "distributed": "dask[distributed]", "libtpu": "jax[tpu]", "jax-cuda12-plugin": "jax[cuda12]",
        "pylibjpeg-openjpeg": "pylibjpeg[libjpeg,openjpeg]",
    }  # fmt: skip
    assert {feature.extra for feature in doctor.FEATURES} == {*extras} - {
        "test",
        "lint",
        "torch",
        "sammed2d",
        "docs",
    }
    for feature in doctor.FEATURES:
        named = [package.split("|")[0] for package in feature.packages]
        for name in named:
            assert written.get(name, name) in " ".join(extras[feature.extra]), feature


def test_a_cache_that_cannot_be_written_is_a_problem_on_the_screen(call, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UKBOB_CACHE", str(tmp_path / "file"))
    assert "PROBLEM: UKBOB_CACHE: the compile cache" in call()
