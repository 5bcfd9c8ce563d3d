"""Tasks over processes that raise, die or are abandoned."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ukbob_jax import processes


def work(task: tuple[str, int, str]) -> int:
    """Doubles, raises, or kills its own process: always, or the first time only."""
    what, number, marker = task
    if what == "raise":
        raise ValueError(f"task {number}")
    if what == "die" or (what == "die once" and not pathlib.Path(marker).exists()):
        pathlib.Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_results_and_errors_come_back_with_their_tasks(workers):
    tasks = [("raise" if number == 2 else "double", number, "") for number in range(6)]
    outcomes = dict(processes.each(work, tasks, workers))
    assert len(outcomes) == 6
    assert [outcomes[task] for task in tasks if task[1] != 2] == [0, 2, 6, 8, 10]
    assert isinstance(outcomes[tasks[2]], ValueError) and str(outcomes[tasks[2]]) == "task 2"


def test_a_worker_that_dies_costs_only_the_task_that_kills_it(tmp_path):
    def what(number: int) -> str:
        return {3: "die once", 7: "die"}.get(number, "double")

    tasks = [(what(number), number, str(tmp_path / str(number))) for number in range(10)]
    outcomes = dict(processes.each(work, tasks, 2))
    assert [outcomes[task] for task in tasks if task[1] != 7] == [2 * n for n in range(10) if n != 7]
    assert isinstance(outcomes[tasks[7]], processes.WorkerDied)
    assert "memory is the likely cause" in str(outcomes[tasks[7]])


SLEEPER = """
import os, sys, time
from ukbob_jax import processes
from tests.test_processes import sleep
if __name__ == "__main__":
    list(processes.each(sleep, [sys.argv[1] + "/a", sys.argv[1] + "/b"], 2))
"""


def sleep(path: str) -> None:
    pathlib.Path(path).write_text(str(os.getpid()))
    time.sleep(60)


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    env = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=env)
    names = [tmp_path / "a", tmp_path / "b"]
    wait(lambda: all(path.exists() and path.read_text() for path in names))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait(lambda: not any(running(int(path.read_text())) for path in names))


def running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def wait(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
