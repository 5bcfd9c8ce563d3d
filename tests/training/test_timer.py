"""Where the time of a run goes."""

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
