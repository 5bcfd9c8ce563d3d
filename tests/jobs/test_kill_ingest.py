"""Ingestion killed at random moments ends with the store of one left alone."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_killed_ingestion_ends_with_the_same_bytes():
    done = subprocess.run(
        [sys.executable, "-m", "tools.kill_ingest", "--kills", "4"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.endswith("identical\n"), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_killed_diffusion_series_end_with_the_same_bytes(tmp_path):
    """Maps of a series are those of one left alone, whoever was killed between which series."""
    from tests.sources import test_dwi  # skips where dipy or SimpleITK is missing

    for number in range(8):
        test_dwi.save(tmp_path / "bids", f"sub-{number}", shape=(10, 9, 8))
    command = [
        *(sys.executable, "-m", "ukbob_jax.main", "--config=configs/dwi.py:fit", "--workdir={workdir}"),
        *("--config.store={store}", f"--config.source.root={tmp_path / 'bids'}", "--config.workers=2"),
        "--take-over",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tools.kill_ingest", "--kills", "2", "--", *command], cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("identical\n"), done.stdout + done.stderr
    assert "8 subjects" in done.stdout
