import pytest

from ukbob_jax import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    return now


def test_a_line_tells_speed_parts_and_the_time_left(clock):
    shown = progress.Progress("train", 200, unit="step", done=20, parts=(8, "crop"))
    shown.update(40)
    assert shown.line("loss 0.51", 10.0) == "train: 40/200 step, loss 0.51, 2 step/s, 16 crop/s, 80 s left"


def test_without_a_total_or_at_the_end_the_time_spent_is_told(clock):
    counted = progress.Progress("read", None)
    counted.update(5)
    assert counted.line("", 10.0) == "read: 5 scan, 0.5 scan/s, 10 s"
    finished = progress.Progress("read", 5)
    finished.update(5)
    assert finished.line("", 10.0) == "read: 5/5 scan, 0.5 scan/s, 10 s"


def test_a_log_gets_a_line_now_and_then_and_the_last_one(clock, capsys):
    shown = progress.Progress("ingest", 100)
    for done in range(1, 101):
        clock[0] += 1.0
        shown.update(done)
    lines = capsys.readouterr().err.splitlines()
    # every 16 s, the first moment beyond 15, and the end
    assert [line.split()[1] for line in lines] == [f"{n}/100" for n in (16, 32, 48, 64, 80, 96, 100)]


def test_track_yields_the_items_and_closes_when_they_end_early(clock, capsys):
    assert list(progress.track(["a", "b"], "read")) == ["a", "b"]
    assert "read: 2/2 scan" in capsys.readouterr().err
    assert list(progress.track(iter("abc"), "read", 3)) == ["a", "b", "c"]
    assert "read: 3/3 scan" in capsys.readouterr().err


def test_a_failure_in_the_work_passes_through(clock):
    def broken():
        yield 1
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        list(progress.track(broken(), "read", 2))
