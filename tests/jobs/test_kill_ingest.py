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
