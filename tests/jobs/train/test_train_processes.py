"""The command line with two processes on this machine, on a real but very small Swin-UNETR; takes minutes."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from ukbob_jax import phantom
from ukbob_jax.store.writer import StoreWriter

pytestmark = pytest.mark.slow
SHAPE = (32, 24, 64)
SETTINGS = {
    "label": "manual", "data.flagged": "off", "data.crop": (32, 32, 32), "data.batch_size": 2, "data.threads": 2,
    "model.feature_size": 12, "model.depths": (1, 1, 1, 1), "model.window_size": (2, 2, 2), "augment": ("intensity",),
    "epochs.total": 0, "optimizer.warmup_steps": 1, "train.steps": 2, "train.log_every": 1, "train.eval_every": 2,
    "organs": ("liver", "muscle"), "inference.overlap": 0.0, "inference.batch": 1,
}  # fmt: skip


def start(workdir, store, processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "ukbob_jax.main", "--config=configs/swin_bob.py", f"--workdir={workdir}"]
    command += [f"--config.store={store}", *(f"--config.{name}={value}" for name, value in SETTINGS.items())]
    env = {
        **os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // processes}",
    }  # fmt: skip
    meeting = [f"--coordinator={address}", f"--processes={processes}"] if processes > 1 else []
    return [
        subprocess.Popen(
            [*command, *meeting, *([f"--process={number}"] if meeting else [])],
            cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for number in range(processes)
    ]  # fmt: skip


def finish(running):
    try:
        messages = [process.communicate(timeout=280)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * len(running), messages


def test_two_processes_train_and_validate_as_one(tmp_path):
    store = tmp_path / "store"
    with StoreWriter(store) as writer:
        for seed in range(4):
            image, label = phantom.subject(seed, SHAPE)
            writer.write(
                f"p{seed}", image, phantom.affine(SHAPE), {"manual": label}, source=str(seed),
                split="val" if seed > 1 else "train", contrasts=phantom.CONTRASTS,
            )  # fmt: skip
    rows = {}
    for processes in (1, 2):
        workdir = tmp_path / f"of_{processes}"
        finish(start(workdir, store, processes))
        rows[processes] = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        assert (workdir / "config.json").is_file()
        assert len(list((workdir / "checkpoints").glob("step_*"))) == 1
    assert rows[1]
    for alone, together in zip(*rows.values(), strict=True):
        assert alone.keys() == together.keys()
        for name in alone.keys() - {
            "train/skipped"
        }:  # float32 sums in another order; Dice counts whole voxels
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-3, atol=2e-3, err_msg=name)
