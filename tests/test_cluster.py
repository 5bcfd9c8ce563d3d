"""Tasks over a dask cluster that raise and die."""

import sys

import pytest

from tests.test_processes import work
from ukbob_jax import cluster, processes
from ukbob_jax.errors import ConfigError


def test_a_missing_library_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"needs dask: pip install 'ukbob-jax\[cluster\]'"):
        list(cluster.each(work, [("double", 1, "")], "local", 1))


def test_an_address_without_a_scheduler_is_told(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "SECONDS", 1)
    with pytest.raises(ConfigError, match=r"config.cluster 'tcp://127.0.0.1:9': no scheduler answers"):
        list(cluster.each(work, [("double", 1, "")], "tcp://127.0.0.1:9", 1))


@pytest.mark.slow
def test_results_errors_and_deaths_come_back_with_their_tasks(tmp_path):
    pytest.importorskip("distributed")
    what = {2: "raise", 3: "die once", 7: "die"}
    tasks = [(what.get(number, "double"), number, str(tmp_path / str(number))) for number in range(12)]
    outcomes = dict(cluster.each(work, tasks, "local", 2))
    assert [outcomes[task] for task in tasks if task[1] not in (2, 7)] == [
        2 * number for number in range(12) if number not in (2, 7)
    ]
    assert isinstance(outcomes[tasks[2]], ValueError) and str(outcomes[tasks[2]]) == "task 2"
    assert isinstance(outcomes[tasks[7]], processes.WorkerDied)
