"""The files of a run's numbers."""

import errno
import json
import os

import numpy as np
import pytest

from ukbob_jax.errors import FileError
from ukbob_jax.training.metrics_log import MetricsLog, lines_until


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_numbers_that_repeat_and_times_that_do_not_go_to_two_files(tmp_path):
    log = MetricsLog(tmp_path, step=0)
    log.numbers(1, {"train/loss": np.float32(0.5), "val/dice": None, "val/nsd": np.nan, "val/hd": np.inf})
    log.timing(1, {"time/seconds": 2.0})
    log.pictures(1, {"look": np.zeros((4, 5, 3), np.uint8)})
    log.close()
    assert rows(tmp_path / "metrics.jsonl") == [
        {"step": 1, "train/loss": 0.5, "val/dice": None, "val/nsd": None, "val/hd": None}
    ]
    assert rows(tmp_path / "timing.jsonl") == [{"step": 1, "time/seconds": 2.0}]
    [board] = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in board.read_bytes() and b"look" in board.read_bytes()


def test_a_resumed_log_reads_as_if_it_had_never_stopped(tmp_path):
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        log = MetricsLog(tmp_path, step=start)
        for step in steps:
            log.numbers(step, {"loss": step + 10 * start})
        log.close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path / "metrics.jsonl")] == [
        (1, 1), (2, 2), (3, 23), (4, 24)
    ]  # fmt: skip


def test_flushed_lines_are_on_disk_before_the_log_is_closed(tmp_path):
    log = MetricsLog(tmp_path, step=0)
    log.numbers(1, {"loss": 1.0})
    log.flush()
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]
    log.close()


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = MetricsLog(tmp_path, step=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FileError, match=r"metrics\.jsonl: cannot write: No space left.* Free space"):
            log.flush()
    log.close()


@pytest.mark.parametrize(
    "text, step, kept",
    [
        ("", 3, ""),
        ('{"step": 1}\n{"step": 2}\n', 1, '{"step": 1}\n'),
        ('{"step": 1}\n{"st', 9, '{"step": 1}\n'),
        ('{"step": 2}\n{"step": 1}\n', 1, '{"step": 1}\n'),
        ('{"step": 1}', 1, '{"step": 1}\n'),
    ],
)
def test_lines_until_a_step(text, step, kept):
    assert lines_until(text, step) == kept
