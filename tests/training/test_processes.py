"""Two and four processes on this machine that train as one; each compiles for itself, so this takes minutes."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.training import toy
from ukbob_jax.training.checkpoints import restore_params

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]


def start(workdir, processes, *, steps=8, fsdp=1, seconds=0, slurm=False):
    """The processes of one training, told by flags where they meet, or by SLURM's variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "auto" if slurm else f"127.0.0.1:{free.getsockname()[1]}"
    step = {"SLURM_JOB_ID": os.getpid(), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": processes}
    command = [sys.executable, "-m", "tests.training.toy_process", workdir, steps, fsdp, seconds, processes]
    return [
        subprocess.Popen(
            list(map(str, [*command, process, address])), cwd=ROOT, stderr=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                **({name: str(value) for name, value in step.items()} if slurm else {}),
                **({"SLURM_PROCID": str(process), "SLURM_LOCALID": str(process)} if slurm else {}),
            },
        )
        for process in range(processes)
    ]  # fmt: skip


def finish(running, code=0):
    """What they wrote to stderr, once all have ended with `code`."""
    messages = []
    try:
        for process in running:
            messages.append(process.communicate(timeout=240)[1])
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [code] * len(running), messages
    return messages


def losses(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def close(one, other):
    """Losses and parameters of two trainings; sums over devices are made in another order."""
    assert losses(one).keys() == losses(other).keys()
    np.testing.assert_allclose(list(losses(one).values()), list(losses(other).values()), rtol=1e-5)
    arrays = [restore_params(workdir / "checkpoints", "latest")[0] for workdir in (one, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *arrays)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same training by one process."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(start(workdir, 1))
    return workdir


@pytest.mark.parametrize("processes, fsdp", [(2, 2), (4, 4)])
def test_several_processes_train_as_one_and_write_one_checkpoint(alone, tmp_path, processes, fsdp):
    finish(start(tmp_path, processes, fsdp=fsdp))
    close(tmp_path, alone)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_00000004",
        "step_00000008",
    ]
    for process in range(1, processes):  # what only concerns it
        assert (tmp_path / f"process_{process}" / "starts.jsonl").exists()


@pytest.mark.parametrize("before, after", [((2, 1), (1, 4)), ((1, 2), (2, 1))])
def test_another_number_of_processes_and_another_mesh_go_on(alone, tmp_path, before, after):
    finish(start(tmp_path, before[0], fsdp=before[1], steps=4))
    [message, *_] = finish(start(tmp_path, after[0], fsdp=after[1], steps=8))
    assert "resumed at step 4" in message
    close(tmp_path, alone)


def test_slurm_says_who_belongs_together(alone, tmp_path):
    finish(start(tmp_path, 2, slurm=True))
    close(tmp_path, alone)


def test_a_signal_to_one_stops_both_at_one_saved_step(tmp_path):
    running = start(tmp_path, 2, steps=100_000, seconds=0.02)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoints" / "step_00000004").exists():
        assert time.monotonic() < deadline and all(process.poll() is None for process in running)
        time.sleep(0.1)
    os.kill(running[1].pid, signal.SIGTERM)
    told = time.monotonic()
    messages = finish(running, code=75)
    assert time.monotonic() - told < 60
    step = restore_params(tmp_path / "checkpoints", "latest")[2]["step"]
    assert all(f"stopped at step {step}, which is saved" in message for message in messages)


def test_a_damaged_checkpoint_is_set_aside_by_all(alone, tmp_path):
    finish(start(tmp_path, 2))
    toy.flip_a_bit(tmp_path / "checkpoints" / "step_00000008")
    messages = finish(start(tmp_path, 2))
    assert "step 8 is damaged" in messages[0] and "resumed at step 4" in messages[0]
    close(tmp_path, alone)
