"""Two processes that train a grader as one, by the command line: the host's partners lie in both."""

import os
import socket
import subprocess

import pytest

from tests import tiny_sentinel
from tests.conftest import ROOT
from tests.training.test_processes import close, finish
from ukbob_jax import files

pytestmark = pytest.mark.slow


def start(store, workdir, case, processes):
    """One device in each of several processes, or as many devices in one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = tiny_sentinel.command(
        store, workdir, case, **{"mesh.data": 2, "train.steps": 4, "train.eval_every": 2}
    )
    meeting = [f"--coordinator={address}", f"--processes={processes}"] if processes > 1 else []
    devices = f"--xla_force_host_platform_device_count={2 // processes}"
    return [
        subprocess.Popen(
            [*command, *meeting, *([f"--process={process}"] if meeting else [])], cwd=ROOT, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True, env={**os.environ, "XLA_FLAGS": devices},
        )
        for process in range(processes)
    ]  # fmt: skip


@pytest.mark.parametrize("case", list(tiny_sentinel.CASES))
def test_two_processes_equal_one(tmp_path, case):
    tiny_sentinel.write_store(tmp_path / "store")
    for processes in (1, 2):
        finish(start(tmp_path / "store", tmp_path / str(processes), case, processes))
    close(tmp_path / "2", tmp_path / "1")
    one, two = (files.read_json(tmp_path / str(processes) / "sentinel.json") for processes in (1, 2))
    assert one["step"] == two["step"] and abs(one["scores"]["mae"] - two["scores"]["mae"]) < 1e-3
