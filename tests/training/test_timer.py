"""Where the time of a run goes."""

import pytest

from ukbob_jax.training import timer as timers
from ukbob_jax.training.metrics_buffer import MetricsBuffer
from ukbob_jax.training.timer import Timer


def test_fetching_a_batch_counts_as_input_only_where_the_device_waits_for_it(tmp_path):
    class Metric:
        def __init__(self, ready):
            self.is_ready = lambda: ready

    timer, buffer = Timer(), MetricsBuffer(tmp_path, [], [], 1)
    for metrics, part in (
        ({}, "input"),
        ({"loss": Metric(False)}, "step"),
        ({"loss": Metric(True)}, "input"),
    ):
        timer.seconds.clear()
        if metrics:
            buffer.add(metrics, None)
        with timer.section("input", unless=(buffer.busy, "step")):
            pass
        assert list(timer.seconds) == [part]


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timers, "time", clock)
    return clock


def test_sections_add_up_and_the_rest_is_other(clock):
    timer = Timer()
    for seconds in (1.0, 2.0):
        with timer.section("step"):
            clock.now += seconds
    with timer.section("input"):
        clock.now += 1.0
    clock.now += 4.0
    assert timer.total == 8.0 and timer.seconds == {"step": 3.0, "input": 1.0}
    assert timer.fractions() == {"step": 0.375, "input": 0.125, "other": 0.5}


def test_a_section_that_fails_is_counted_too(clock):
    timer = Timer()
    with pytest.raises(RuntimeError, match="broken"), timer.section("step"):
        clock.now += 2.0
        raise RuntimeError("broken")
    assert timer.fractions() == {"step": 1.0, "other": 0.0}


def test_a_timer_that_has_just_started_divides_by_no_zero(clock):
    assert Timer().fractions() == {"other": 1.0}
