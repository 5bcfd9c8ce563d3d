"""Many scans: what is written, what is passed over, and what is refused before any work."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inference.networks import CARD, Bands, bands, scan
from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError, SomeFailed
from ukbob_jax.inference import predict_scans
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.volumes.nifti import read_volume
from ukbob_jax.volumes.volume import Volume


@pytest.fixture(scope="module")
def segmenter():
    model = Bands()
    return Segmenter(model, model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"], CARD)


def test_a_scan_that_fails_does_not_stop_the_others(segmenter, tmp_path):
    two_contrasts = Volume(np.stack([scan().array] * 2, -1), scan().affine)
    scans = {"good": scan(), "bad": two_contrasts}
    with pytest.raises(SomeFailed, match="1 of 2 scans failed"):
        predict_scans.label(segmenter, scans, tmp_path, "refuse", PredictOptions(method="etta"))
    np.testing.assert_array_equal(read_volume(tmp_path / "good.nii.gz").array, bands(scan().array))
    [row] = files.read_jsonl(tmp_path / "failures.jsonl")
    assert row["subject"] == "bad" and "2 contrasts" in row["reason"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failed"] == ["bad"] and summary["scans"]["good"]["adaptation"]["method"] == "etta"


def test_what_exists_is_refused_skipped_or_overwritten(tmp_path):
    target = tmp_path / "labels.nii.gz"
    for existing in predict_scans.EXISTING:
        assert predict_scans.should_write(target, existing, "scan.nii.gz")
    target.write_bytes(b"labels")
    assert not predict_scans.should_write(target, "skip", "scan.nii.gz")
    assert predict_scans.should_write(target, "overwrite", "scan.nii.gz")
    with pytest.raises(ConfigError, match=r"labels\.nii\.gz exists"):
        predict_scans.should_write(target, "refuse", "scan.nii.gz")
    with pytest.raises(ConfigError, match="is the scan itself"):
        predict_scans.should_write(target, "overwrite", ("other.nii.gz", target))
    with pytest.raises(ConfigError, match="'keep' is not one of refuse, skip, overwrite"):
        predict_scans.should_write(target, "keep", "scan.nii.gz")
    with pytest.raises(FileError, match="is not a folder that can be written"):
        predict_scans.should_write(target / "below" / "labels.nii.gz", "refuse", "scan.nii.gz")
