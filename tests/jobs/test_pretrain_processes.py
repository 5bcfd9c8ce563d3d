"""Two processes that pre-train as one, by the command line; each compiles for itself, so this takes minutes."""

import os
import socket
import subprocess

import pytest

from tests import tiny_pretraining
from tests.conftest import ROOT
from tests.training.test_processes import close, finish

pytestmark = pytest.mark.slow


def start(store, workdir, case, processes):
    """One device in each of several processes, or as many devices in one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = tiny_pretraining.command(store, workdir, case, **{"mesh.data": 2, "train.steps": 4})
    meeting = [f"--coordinator={address}", f"--processes={processes}"] if processes > 1 else []
    devices = f"--xla_force_host_platform_device_count={2 // processes}"
    return [
        subprocess.Popen(
            [*command, *meeting, *([f"--process={process}"] if meeting else [])], cwd=ROOT, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True, env={**os.environ, "XLA_FLAGS": devices},
        )
        for process in range(processes)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes") / "store"
    tiny_pretraining.write_store(path)
    return path


@pytest.mark.parametrize("case", ["mae", "voco", "voco_authors", "swinunetr", "simclr"])
def test_two_processes_equal_one(store, tmp_path, case):
    """All but MAE compare the samples of a batch, half of which lie in the other process."""
    for processes in (1, 2):
        finish(start(store, tmp_path / str(processes), case, processes))
    close(tmp_path / "2", tmp_path / "1")
