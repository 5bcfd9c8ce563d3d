"""The command line: what a mistake answers, and with which exit code (F15)."""

import os
import signal
import socket
import subprocess
import sys
import time
import types

import pytest

from tests.conftest import ROOT
from ukbob_jax import jobs, main, run_lock


def call(capsys, *argv: str) -> tuple[int, str]:
    code = main.main(list(argv))
    return code, capsys.readouterr().err


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(
        "import ml_collections\n"
        "VARIANTS = {'small': {}}\n"
        "def get_config(variant='small'):\n"
        "    config = ml_collections.ConfigDict({'job': 'solf', 'store': '{workdir}/none', 'platform': 'any'})\n"
        "    config.label = 'auto'\n"
        "    config.solf = {'epsilon': 2.0, 'min_outside': 2, 'min_voxels': 24, 'rule': 'percentile'}\n"
        "    config.train = {'steps': 3, 'rate': 0.5}\n"
        "    return config\n"
    )
    return str(path)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--workdir=W"], "--config=FILE.py[:VARIANT] is missing"),
        (["--config=R"], "--workdir=DIR is missing"),
        (["--config=nowhere.py", "--workdir=W"], "nowhere.py: no such recipe"),
        (["--config=R:huge", "--workdir=W"], "no variant 'huge'; there are small"),
        (["--config=R", "--workdir=W", "--config.train.stepz=4"], "Did you mean train.steps"),
        (["--config=R", "--workdir=W", "--config.train.steps=many"], "steps"),
        (["--config=R", "--workdir=W", "--confg.train.steps=4"], "confg"),
        (["--config=R", "--workdir=W", "extra"], "unexpected argument 'extra'"),
        (["--config=R", "--workdir=W", "--config.job=dream"], "no job 'dream'; there are inspect"),
        (["--config=R", "--workdir=W", "--config.job=judge"], "'judge' is now 'check_labels'"),
        (["--config=R", "--workdir=W", "--config.platform=tpu"], "JAX sees only cpu"),
        (["--config=R", "--workdir=W", "--coordinator=nowhere"], "expected HOST:PORT"),
        (["--config=R", "--workdir=W", "--coordinator=auto"], "no cluster found"),
    ],
)
def test_answers_a_mistake_in_one_line_with_exit_code_2(capsys, tmp_path, recipe, arguments, said):
    words = [word.replace("=R", f"={recipe}").replace("=W", f"={tmp_path / 'work'}") for word in arguments]
    code, error = call(capsys, *words)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_accepts_overrides_before_the_recipe(capsys, tmp_path, recipe):
    code, error = call(
        capsys, "--config.train.steps=4", f"--config={recipe}", f"--workdir={tmp_path / 'work'}"
    )
    assert code == 3 and "none" in error  # gets as far as the store that is not there


def test_refuses_a_workdir_with_foreign_files(capsys, tmp_path, recipe):
    (tmp_path / "thesis.tex").write_text("do not touch")
    code, error = call(capsys, f"--config={recipe}", f"--workdir={tmp_path}")
    assert code == 2 and "not a workdir of a former run" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.py", "thesis.tex"]


def test_refuses_a_compile_cache_that_cannot_be_written(capsys, tmp_path, recipe, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UKBOB_CACHE", str(tmp_path / "file" / "cache"))
    code, error = call(capsys, f"--config={recipe}", f"--workdir={tmp_path / 'work'}")
    assert code == 2 and "UKBOB_CACHE" in error


def test_reports_an_unreachable_coordinator_before_jax_aborts(tmp_path, recipe):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    start = time.monotonic()
    command = [sys.executable, "-m", "ukbob_jax.main", f"--config={recipe}", f"--workdir={tmp_path / 'work'}"]
    command += [f"--coordinator={address}", "--processes=2", "--process=1"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no answer within" in done.stderr and done.stderr.count("\n") == 1
    assert time.monotonic() - start < 30


@pytest.fixture
def job(monkeypatch):
    """What the recipe's job does, `action(workdir)`."""

    def use(action):
        module = types.SimpleNamespace(run=lambda config, workdir: action(workdir))
        monkeypatch.setattr(jobs, "find", lambda name: module)

    return use


def test_a_second_run_in_a_workdir_is_refused_and_says_who_holds_it(capsys, tmp_path, recipe, job):
    words = [f"--config={recipe}", f"--workdir={tmp_path / 'work'}"]
    told = []
    job(lambda workdir: told.extend([main.main([*words, "--take-over"]), capsys.readouterr().err]))
    assert main.main(words) == 0
    code, error = told
    assert (
        code == 2 and f"process {os.getpid()} on {socket.gethostname()}" in error and error.count("\n") == 1
    )
    assert "held by a run of solf since" in error and "Wait for it, stop it" in error
    assert not list((tmp_path / "work").glob(".ukbob.lock*"))
    assert main.main(words) == 0  # the first has let go


@pytest.mark.slow
def test_all_processes_of_a_refused_run_end_with_a_line(tmp_path, recipe):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = [f"--coordinator=127.0.0.1:{free.getsockname()[1]}", "--processes=2"]
    words = [
        sys.executable,
        "-m",
        "ukbob_jax.main",
        f"--config={recipe}",
        f"--workdir={tmp_path / 'work'}",
        *meeting,
    ]
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".ukbob").write_text("solf\n")
    with run_lock.held(tmp_path / "work", "train"):
        both = [
            subprocess.Popen([*words, f"--process={number}"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
            for number in range(2)
        ]
        told = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [2, 2], told
    assert "held by a run of train since" in told[0] and "process 0 was refused" in told[1]


def test_a_run_that_was_killed_is_told_and_taken_over_when_asked(capsys, tmp_path, recipe, job):
    words = [f"--config={recipe}", f"--workdir={tmp_path / 'work'}"]
    command = [sys.executable, "-m", "tests.killed_run", *words]
    assert subprocess.run(command, cwd=ROOT, timeout=120).returncode == -signal.SIGKILL
    job(lambda workdir: None)
    code, error = call(capsys, *words)
    assert code == 2 and "which is gone. Take over with --take-over" in error and error.count("\n") == 1
    code, error = call(capsys, *words, "--take-over")
    assert code == 0 and error.startswith(
        f"took {(tmp_path / 'work').resolve()} over from a run of solf since"
    )
    assert call(capsys, *words) == (0, "")


def test_sigterm_ends_any_job_with_code_75_and_unlocks(capsys, tmp_path, recipe, job):
    def work(workdir):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    job(work)
    start = time.monotonic()
    code, error = call(capsys, f"--config={recipe}", f"--workdir={tmp_path / 'work'}")
    assert code == 75 and "stopped as asked" in error and error.count("\n") == 1
    assert time.monotonic() - start < 10 and not list((tmp_path / "work").glob(".ukbob.lock*"))


def test_shows_a_traceback_only_when_debugging(capsys, tmp_path, recipe):
    words = [f"--config={recipe}", f"--workdir={tmp_path / 'work'}", "--config.train.stepz=4"]
    assert "Traceback" not in call(capsys, *words)[1]
    assert "Traceback" in call(capsys, *words, "--debug")[1]


def test_prints_help_without_a_recipe(capsys):
    assert main.main(["--help"]) == 0
    assert "Jobs: inspect" in capsys.readouterr().out
