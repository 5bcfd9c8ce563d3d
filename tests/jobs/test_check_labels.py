"""What the job says and refuses; its verdicts are compared with the cohort's in tests/jobs/test_solf.py."""

import numpy as np
import pytest

from configs import common
from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.jobs import check_labels
from ukbob_jax.quality import cohort
from ukbob_jax.quality.limits import Limits
from ukbob_jax.volumes.nifti import write_volume
from ukbob_jax.volumes.volume import Volume


def config(**fields):
    made = common.base()
    made.check_labels.update(fields)
    return made.copy_and_resolve_references()


def row(organ, flagged, *outside):
    return {"organ": organ, "flagged": flagged, "outside": list(outside)}


def test_the_line_names_flagged_organs_and_why():
    rows = [row(5, True, "volume", "sphericity"), row(1, False, "volume"), row(24, True, "eccentricity")]
    assert check_labels.line("s", rows) == (
        "s: 2 of 3 labels flagged: liver (volume, sphericity); heart (eccentricity)"
    )
    assert check_labels.line("s", rows[1:2]) == "s: 0 of 1 labels flagged"


def test_inputs_and_limits_must_be_named_and_there(tmp_path):
    for fields in ({"inputs": "a.nii.gz"}, {"limits": "limits.json"}, {}):
        with pytest.raises(
            ConfigError, match=r"config\.check_labels\.inputs and config\.check_labels\.limits"
        ):
            check_labels.run(config(**fields), str(tmp_path))
    with pytest.raises(FileError, match=r"limits\.json: no such file"):
        check_labels.run(config(inputs="a.nii.gz", limits=str(tmp_path / "limits.json")), str(tmp_path))


@pytest.fixture
def no_limits(monkeypatch, tmp_path):
    """A folder of two maps, one of them damaged; limits and measures are replaced."""
    monkeypatch.setattr(Limits, "load", lambda path: None)
    monkeypatch.setattr(cohort, "check_body", lambda limits, body, where: None)

    def check(name, path, limits, attributes):
        if path.stat().st_size < 200:
            raise FileError(f"{path}: truncated.")
        return [row(5, True, "volume")]

    monkeypatch.setattr(check_labels, "check", check)
    write_volume(tmp_path / "maps" / "a.nii", Volume(np.ones((3, 3, 3), np.uint8), np.eye(4)))
    (tmp_path / "maps" / "b.nii").write_bytes(b"cut")
    return tmp_path


def test_a_damaged_map_is_listed_and_does_not_stop_the_others(no_limits, capsys):
    made = config(inputs=str(no_limits / "maps"), limits="x")
    with pytest.raises(SomeFailed, match="1 of 2"):
        check_labels.run(made, str(no_limits))
    assert files.read_jsonl(no_limits / "check_labels" / "a.jsonl") == [row(5, True, "volume")]
    assert capsys.readouterr().out == "a: 1 of 1 labels flagged: liver (volume)\n"
    (failure,) = files.read_jsonl(no_limits / "check_labels" / "failures.jsonl")
    assert failure["subject"] == "b" and "truncated" in str(failure)


def test_the_only_map_fails_for_its_own_reason(no_limits):
    made = config(inputs=str(no_limits / "maps" / "b.nii"), limits="x")
    with pytest.raises(FileError, match=r"b\.nii: truncated"):
        check_labels.run(made, str(no_limits))
