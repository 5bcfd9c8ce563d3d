import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.training import toy
from tools import kill_test
from ukbob_jax.errors import ConfigError, FileError, Preempted
from ukbob_jax.training import checkpoints, metrics_log, provenance
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.training.metrics_buffer import NonFinite


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A run of 12 steps that nothing disturbed: its folder and its last state."""
    workdir = tmp_path_factory.mktemp("calm")
    return workdir, toy.fit(workdir)


def metrics(workdir):
    return (workdir / "metrics.jsonl").read_text()


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def stopping_after(step):
    """A stream that asks this process to stop while the batch of a step is fetched."""

    def stream(start_step):
        for number, batch in enumerate(toy.batches(start_step), start_step + 1):
            if number == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    return stream


def test_a_run_writes_what_a_reader_needs(calm):
    workdir, state = calm
    rows = [json.loads(line) for line in metrics(workdir).splitlines()]
    assert [row["step"] for row in rows] == [4, 5, 8, 10, 12, 12]
    assert set(rows[1]) == {"step", "train/loss", "train/grad_norm", "train/learning_rate", "train/skipped"}
    assert set(rows[0]) == {"step", "val/dice"}
    timing = [json.loads(line) for line in (workdir / "timing.jsonl").read_text().splitlines()]
    shares = [value for name, value in timing[-1].items() if name not in ("step", "time/seconds")]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert list((workdir / "tensorboard").glob("events*"))
    assert restore_params(workdir / "checkpoints", "latest")[2]["step"] == state.step == 12
    start = json.loads((workdir / "starts.jsonl").read_text())
    assert start["step"] == 0 and start["packages"]["jax"] == jax.__version__ and "cpu" in start["devices"]


def test_a_slow_stream_shows_as_input(tmp_path):
    def slow(start):
        for one in toy.batches(start):
            time.sleep(0.05)
            yield one

    toy.fit(tmp_path, steps=20, stream=slow, evaluate=None, every=100)
    last = json.loads((tmp_path / "timing.jsonl").read_text().splitlines()[-1])
    # The toy's step takes a millisecond, so nearly all of the twenty waits of 50 ms are the device's too.
    assert last["time/input"] * last["time/seconds"] > 0.7


def test_the_same_run_gives_the_same_numbers(calm, tmp_path):
    same(toy.fit(tmp_path), calm[1])
    assert metrics(tmp_path) == metrics(calm[0])


@pytest.mark.parametrize("step, stopped", [(3, 2), (6, 4), (7, 5)])
def test_a_run_told_to_stop_saves_and_ends_as_if_it_never_had(calm, tmp_path, step, stopped):
    # From the second step on the stream runs ahead of the training by the two batches held on the device.
    with pytest.raises(Preempted, match=f"stopped at step {stopped}, which is saved"):
        toy.fit(tmp_path, stream=stopping_after(step))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    same(toy.fit(tmp_path), calm[1])
    assert metrics(tmp_path) == metrics(calm[0])
    assert (
        restore_params(tmp_path / "checkpoints")[2]["step"]
        == restore_params(calm[0] / "checkpoints")[2]["step"]
    )


def test_a_finished_run_started_again_does_nothing(calm, tmp_path):
    workdir, state = calm
    before = metrics(workdir)

    def stream(start_step):
        raise AssertionError("no batch is needed")

    same(toy.fit(workdir, stream=stream), state)
    assert metrics(workdir) == before


def test_more_steps_may_be_asked_for_later(calm, tmp_path):
    toy.fit(tmp_path, steps=8)
    same(toy.fit(tmp_path, steps=12), calm[1])


def test_a_field_that_a_run_did_not_know_is_the_same_while_it_is_off():
    provenance.check_resume({"seed": 3}, {"seed": 3, "model.new": 0, "model.newer": ()}, "runs")
    provenance.check_resume({"seed": 3, "model.old": False}, {"seed": 3}, "runs")
    for now in ({"seed": 3, "model.new": 2}, {"seed": 0}, {"seed": None}, {}):
        with pytest.raises(ConfigError, match=r"seed was 3|model.new was None, is 2"):
            provenance.check_resume({"seed": 3}, now, "runs")
    with pytest.raises(ConfigError, match="clip_norm was None, is 0"):
        provenance.check_resume({"clip_norm": None}, {"clip_norm": 0.0}, "runs")


def test_another_recipe_is_refused_by_field_and_value(calm):
    with pytest.raises(ConfigError, match=r"data\.batch_size was None, is 4; seed was 3, is 4"):
        toy.fit(calm[0], recipe={"seed": 4, "data.batch_size": 4})


def test_lines_after_the_checkpoint_are_dropped_and_a_broken_last_line_too(calm, tmp_path):
    toy.fit(tmp_path, steps=8)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 10, "train/loss": 5}\n{"step": 12, "tra')
    toy.fit(tmp_path)
    lines = metrics(tmp_path).splitlines()
    assert [json.loads(line)["step"] for line in lines].count(10) == 1
    assert lines[-1] == metrics(calm[0]).splitlines()[-1]


def test_an_average_of_the_parameters_resumes_exactly_and_is_what_is_scored(tmp_path):
    state = toy.fit(tmp_path / "calm", ema=0.9)
    with pytest.raises(Preempted, match="stopped at step 5"):
        toy.fit(tmp_path / "stopped", ema=0.9, stream=stopping_after(7))
    same(toy.fit(tmp_path / "stopped", ema=0.9), state)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "calm")
    same(restore_params(tmp_path / "stopped" / "checkpoints", "latest")[0], state.ema)
    last = json.loads(metrics(tmp_path / "calm").splitlines()[-1])
    assert last["val/dice"] == toy.evaluation(state)[0]["val/dice"]


def test_a_checkpoint_is_safe_before_its_evaluation_fails_and_the_evaluation_comes_again(calm, tmp_path):
    def failing(state):
        if int(state.step) == 8:
            raise RuntimeError("out of memory")
        return toy.evaluation(state)

    with pytest.raises(RuntimeError, match="out of memory"):
        toy.fit(tmp_path, evaluate=failing)
    assert (tmp_path / "checkpoints" / "step_00000008").is_dir()
    same(toy.fit(tmp_path), calm[1])
    assert metrics(tmp_path) == metrics(calm[0])
    best = [restore_params(path / "checkpoints")[2]["step"] for path in (calm[0], tmp_path)]
    assert best[0] == best[1]


def test_a_run_that_dies_between_evaluation_and_score_logs_the_evaluation_once(calm, tmp_path, monkeypatch):
    def dies(self, step, score):
        self.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoints, "rank", dies)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(tmp_path)
    assert '"val/dice"' in metrics(tmp_path).splitlines()[-1]
    monkeypatch.undo()
    same(toy.fit(tmp_path), calm[1])
    assert metrics(tmp_path) == metrics(calm[0])


def test_a_pending_evaluation_is_dropped_where_there_is_none_any_more(tmp_path):
    with pytest.raises(Preempted, match="stopped at step 4"):
        toy.fit(tmp_path, stream=stopping_after(6))  # an evaluation was due after step 4
    assert toy.fit(tmp_path, evaluate=None).step == 12


def as_first_written(workdir, step):
    """Make the checkpoint of `step` what earlier versions wrote: other keys, a score without a direction."""
    folder = workdir / "checkpoints" / f"step_{step:08d}"
    meta = json.loads((folder / "meta" / "metadata").read_text())
    score = json.loads(path.read_text()) if (path := folder / "metrics" / "metrics").exists() else {}
    pending = score.get("pending", False)
    del meta["best"]
    (folder / "meta" / "metadata").write_text(json.dumps({**meta, "owes_evaluation": pending}))
    if pending:
        shutil.rmtree(folder / "metrics")
    elif score:
        path.write_text(json.dumps({"score": score["score"]}))
    return pending


@pytest.mark.parametrize("stop, pending", [(6, True), (7, False)])
def test_a_checkpoint_of_an_earlier_version_goes_on(calm, tmp_path, stop, pending):
    with pytest.raises(Preempted):
        toy.fit(tmp_path, stream=stopping_after(stop))
    steps = [int(path.name.split("_")[1]) for path in (tmp_path / "checkpoints").glob("step_*")]
    assert [as_first_written(tmp_path, step) for step in sorted(steps)][-1] == pending
    same(toy.fit(tmp_path), calm[1])
    assert metrics(tmp_path) == metrics(calm[0])
    best = restore_params(calm[0] / "checkpoints")[2]["step"]
    assert restore_params(tmp_path / "checkpoints")[2]["step"] == best


@pytest.mark.parametrize("failing, stream", [(8, toy.batches), (5, stopping_after(7))])
def test_a_run_whose_last_save_fails_does_not_end_as_if_it_were_saved(tmp_path, monkeypatch, failing, stream):
    manager = checkpoints.ocp.CheckpointManager
    save = manager.save

    def full(self, step, **options):
        if step == failing:
            raise ValueError("No space left on device")
        return save(self, step, **options)

    monkeypatch.setattr(manager, "save", full)
    with pytest.raises(
        FileError, match=f"saving step {failing} failed: No space left on device; step 4 still"
    ):
        toy.fit(tmp_path, steps=8, stream=stream)
    monkeypatch.undo()
    assert toy.fit(tmp_path, steps=8).step == 8


def test_a_disk_too_full_for_the_log_is_named_and_the_run_goes_on_when_there_is_space(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def stream(start_step):
        for number, batch in enumerate(toy.batches(start_step), start_step + 1):
            if number == 10:
                monkeypatch.setattr(metrics_log.os, "fsync", full)
            yield batch

    with pytest.raises(FileError, match=r"metrics\.jsonl: cannot write: No space left on device\. Free"):
        toy.fit(tmp_path, stream=stream)
    monkeypatch.undo()
    assert toy.fit(tmp_path).step == 12


def poisoned(*steps):
    def stream(start_step):
        for number, batch in enumerate(toy.batches(start_step), start_step + 1):
            if number in steps:
                batch["image"][0] = np.nan
            yield batch

    return stream


def test_a_poisoned_batch_is_skipped_counted_and_named(tmp_path, capfd):
    state = toy.fit(tmp_path, stream=poisoned(2, 7))
    assert state.skipped == 2
    rows = [json.loads(line) for line in metrics(tmp_path).splitlines()]
    assert [row["train/skipped"] for row in rows if "train/loss" in row] == [1, 1, 0]
    assert all(np.isfinite(row["train/loss"]) for row in rows if "train/loss" in row)
    listed = [json.loads(line) for line in (tmp_path / "nonfinite.jsonl").read_text().splitlines()]
    assert [row["step"] for row in listed] == [2, 7]
    assert listed[0]["subjects"] == [f"s{n}" for n in dict.fromkeys(toy.batch(1)["subject"].tolist())]
    assert "step 2 (s" in capfd.readouterr().err


def test_too_many_in_a_row_stop_the_run_and_keep_the_last_good_checkpoint(tmp_path):
    with pytest.raises(NonFinite, match=r"step 8 \(s.*not finite in 3 steps in a row") as caught:
        toy.fit(tmp_path, stream=poisoned(6, 7, 8, 9), stop_after_nonfinite=3)
    assert caught.value.exit_code == 1
    params, _, meta = restore_params(tmp_path / "checkpoints", "latest")
    assert meta["step"] == 4 and all(np.all(np.isfinite(p)) for p in jax.tree.leaves(params))


def test_an_evaluation_that_is_not_a_number_is_never_the_best(tmp_path):
    scores = iter([0.5, float("nan"), 0.4])
    toy.fit(tmp_path, evaluate=lambda state: ({"val/dice": next(scores)}, {}))
    assert restore_params(tmp_path / "checkpoints")[2]["step"] == 4
    assert json.loads(metrics(tmp_path).splitlines()[2]) == {"step": 8, "val/dice": None}


def test_a_damaged_subject_ends_the_run_with_its_own_message(tmp_path):
    def stream(start_step):
        yield from [toy.batch(step) for step in range(start_step, 6)]
        raise FileError("subject s7, image: damaged")

    with pytest.raises(FileError, match="s7"):
        toy.fit(tmp_path, stream=stream)
    assert restore_params(tmp_path / "checkpoints", "latest")[2]["step"] == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_evaluation_is_given_up_when_asked_to_stop_and_done_by_the_next_start(calm, tmp_path, number):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = []

    def stopped(state):
        seen.append(int(state.step))
        if int(state.step) == 8:
            os.kill(os.getpid(), number)
            time.sleep(60)  # as a long scan would take
        return toy.evaluation(state)

    try:
        start = time.monotonic()
        with pytest.raises(Preempted, match="stopped in the evaluation after step 8"):
            toy.fit(tmp_path, evaluate=stopped)
        assert time.monotonic() - start < 30 and seen == [4, 8]
    finally:
        signal.signal(signal.SIGINT, before)
    same(toy.fit(tmp_path), calm[1])
    assert metrics(tmp_path) == metrics(calm[0])


def test_a_stop_that_was_asked_for_before_an_evaluation_does_not_begin_it(tmp_path):
    seen = []

    def evaluate(state):
        seen.append(int(state.step))
        return toy.evaluation(state)

    with pytest.raises(Preempted, match="which is saved") as stopped:
        toy.fit(tmp_path, stream=stopping_after(4), evaluate=evaluate, every=1)
    step = int(str(stopped.value).split("stopped at step ")[1].split(",")[0])  # batches are fetched ahead
    assert seen == list(range(1, step))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_bit_for_bit_the_same(tmp_path, capfd):
    command = [*kill_test.TOY, "150"]
    assert kill_test.start(command, tmp_path / "calm").wait() == 0
    seed = os.getpid()  # other moments in every test run; a failure says which
    rng, told = kill_test.random.Random(seed), f"kill moments of random.Random({seed})"
    assert kill_test.kill_often(command, tmp_path / "killed", 2, 0.5, rng) == 2, told
    assert kill_test.start(command, tmp_path / "killed").wait() == 0, told
    assert kill_test.compare(tmp_path / "calm", tmp_path / "killed") == [], told


def test_sigterm_to_the_process_ends_it_with_code_75_within_seconds(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.toy_run", str(tmp_path), "100000"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "starts.jsonl").exists():
        time.sleep(0.05)
    time.sleep(1.0)
    process.terminate()
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "Traceback" not in messages
    step = restore_params(tmp_path / "checkpoints", "latest")[2]["step"]
    assert (
        f"stopped at step {step}, which is saved" in messages
        or f"stopped in the evaluation after step {step};" in messages
    )
