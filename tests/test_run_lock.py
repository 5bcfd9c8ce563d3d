"""Who may work in a workdir beside whom, and what is said of a lock that was left."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

from ukbob_jax import run_lock
from ukbob_jax.errors import ConfigError


def holds(folder, *arguments, **options) -> str:
    """What is said to whoever tries; "" where they get it."""
    try:
        with run_lock.held(folder, *arguments, **options):
            return ""
    except ConfigError as error:
        return str(error)


def left_by(folder, **changes):
    """The lock of this process with some facts changed."""
    with run_lock.held(folder, "train"):
        found = json.loads((folder / run_lock.LOCK).read_text())
    (folder / run_lock.LOCK).write_text(json.dumps(found | changes))


@pytest.fixture
def gone():
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_one_run_holds_a_workdir_and_lets_go_of_it_whatever_happens(tmp_path):
    with pytest.raises(RuntimeError), run_lock.held(tmp_path, "train"):
        told = holds(tmp_path, "evaluate")
        raise RuntimeError
    assert "held by a run of train since 20" in told
    assert f"process {os.getpid()} on {socket.gethostname()}. Wait for it" in told
    assert holds(tmp_path, "evaluate") == "" and not [*tmp_path.iterdir()]


def test_a_live_run_is_never_taken_over(tmp_path):
    with run_lock.held(tmp_path, "train"):
        assert "Wait for it, stop it" in holds(tmp_path, "train", take_over=True)
        assert (tmp_path / run_lock.LOCK).exists()


def test_a_run_that_is_gone_is_told_and_taken_over_when_asked(tmp_path, gone, capsys):
    left_by(tmp_path, process=gone)
    assert f"process {gone} on {socket.gethostname()}, which is gone. Take over with --take-over" in holds(
        tmp_path, "x"
    )
    assert holds(tmp_path, "x", take_over=True) == "" and holds(tmp_path, "x") == ""
    assert capsys.readouterr().err.startswith(f"took {tmp_path} over from a run of train since 20")


def test_a_process_that_has_the_number_of_another_is_not_it(tmp_path):
    if not (run_lock._PROC / "self").exists():
        pytest.skip("this system does not say when a process was started")
    left_by(tmp_path, started="of another start 1")
    assert "which is gone" in holds(tmp_path, "train")


def test_a_run_on_another_host_is_there_as_long_as_its_lock_is_renewed(tmp_path, monkeypatch):
    left_by(tmp_path, host="elsewhere", process=1)
    assert "process 1 on elsewhere. Wait for it" in holds(tmp_path, "train")
    monkeypatch.setattr(run_lock, "ALIVE", 1.0)
    stop = threading.Event()

    def renew():
        while not stop.wait(0.2):
            os.utime(tmp_path / run_lock.LOCK)

    thread = threading.Thread(target=renew)
    thread.start()
    time.sleep(1.5)
    told = holds(tmp_path, "train", take_over=True)
    stop.set()
    thread.join()
    assert "process 1 on elsewhere. Wait for it" in told


def test_a_run_on_another_host_that_no_longer_renews_its_lock_is_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, "ALIVE", 1.0)
    left_by(tmp_path, host="elsewhere", process=1)
    assert holds(tmp_path, "train", take_over=True) == ""  # waits for a second to see
    assert "waiting up to 1 s to see whether a run of train since" in capsys.readouterr().err
    left_by(tmp_path, host="elsewhere", process=1)
    os.utime(tmp_path / run_lock.LOCK, (0, 0))
    assert "process 1 on elsewhere, which is gone. Take over with --take-over" in holds(tmp_path, "train")
    assert holds(tmp_path, "train", take_over=True) == "" and not [*tmp_path.iterdir()]


def test_whoever_holds_a_workdir_renews_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT", 0.05)
    with run_lock.held(tmp_path, "train"):
        os.utime(tmp_path / run_lock.LOCK, (0, 0))
        for _ in range(200):
            if (tmp_path / run_lock.LOCK).stat().st_mtime > 0:
                break
            time.sleep(0.05)
        assert (tmp_path / run_lock.LOCK).stat().st_mtime > 0


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", '{"host": "HERE", "process": "x"}'])
def test_a_lock_that_says_nothing_is_told_in_one_line(tmp_path, text):
    (tmp_path / run_lock.LOCK).write_text(text.replace("HERE", socket.gethostname()))
    told = holds(tmp_path, "train")
    assert "--take-over" in told and "\n" not in told
    assert holds(tmp_path, "train", take_over=True) == ""


def test_shares_of_one_job_run_beside_each_other_and_nothing_else_does(tmp_path):
    with run_lock.held(tmp_path, "label", "0-of-4"):
        assert holds(tmp_path, "label", "3-of-4") == ""
        for arguments in (
            ("label", "0-of-4"),
            ("label", "1-of-8"),
            ("solf", "1-of-4"),
            ("label",),
            ("train",),
        ):
            assert "held by a run of label" in holds(tmp_path, *arguments)
        assert holds(tmp_path, "label", "1-of-4") == ""
    with run_lock.held(tmp_path, "train"):
        assert "held by a run of train" in holds(tmp_path, "label", "0-of-4")


def test_whoever_was_taken_over_leaves_the_lock_of_the_other_alone(tmp_path):
    with run_lock.held(tmp_path, "train"):
        (tmp_path / run_lock.LOCK).write_text("of another")
    assert (tmp_path / run_lock.LOCK).read_text() == "of another"


def test_a_share_is_read_from_the_section_of_the_job():
    section = types.SimpleNamespace
    assert run_lock.share_of(section(process=3, processes=16)) == "3-of-16"
    assert (
        run_lock.share_of(section(process=0, processes=1))
        == run_lock.share_of(section())
        == run_lock.share_of(None)
        == ""
    )


def test_a_workdir_that_cannot_be_written_is_told(tmp_path):
    with (
        pytest.raises(ConfigError, match="cannot be written: No such file or directory"),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(run_lock.held(tmp_path / "nowhere", "train"))
