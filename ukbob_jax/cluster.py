"""Tasks over a cluster, through dask.distributed: the same promises as `processes.each`, on many machines."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, TypeVar

from ukbob_jax.errors import ConfigError
from ukbob_jax.processes import WorkerDied

Task = TypeVar("Task")
AHEAD = 1000  # tasks the scheduler is given at a time
SECONDS = 15  # to reach a scheduler


def each(
    function: Callable[[Task], Any], tasks: Iterable[Task], cluster: str, workers: int
) -> Iterator[tuple[Task, Any]]:
    """Yield each task with the result of `function(task)`, or with the exception it raised, as they finish.

    A task whose worker dies is given to another one by the scheduler; after its `allowed-failures` (3) the task is
    tried once more with nothing beside it, since the blame falls on all that a dead worker held, and then comes back as
    `processes.WorkerDied`.

    Args:
        function: importable by name on every worker, as are the tasks' classes.
        cluster: "local" starts `workers` processes on this machine; else a scheduler's address, such as
            tcp://10.0.0.1:8786.
        workers: processes of a local cluster.
    Raises:
        ConfigError: dask is not installed, or no scheduler answers at that address.
    """
    distributed = library()
    with connected(distributed, cluster, workers) as client:
        queue, suspects = iter(tasks), []
        for task, outcome in _run(distributed, client, function, queue, AHEAD):
            if isinstance(outcome, WorkerDied):
                suspects.append(task)
            else:
                yield task, outcome
        yield from _run(distributed, client, function, iter(suspects), 1)


def library() -> ModuleType:
    """dask.distributed.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise ConfigError(
            "config.cluster needs dask: pip install 'ukbob-jax[cluster]', or leave it empty for processes."
        ) from error
    return distributed


@contextlib.contextmanager
def connected(distributed: ModuleType, cluster: str, workers: int) -> Iterator[Any]:
    """A client of the cluster; a local one is stopped at the end, another one is left as it was.

    Raises:
        ConfigError: no scheduler answers.
    """
    with contextlib.ExitStack() as stack:
        address: Any = cluster
        if cluster == "local":
            address = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            )
        try:
            client = distributed.Client(address, timeout=SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(
                f"config.cluster {cluster!r}: no scheduler answers ({error}). Start one with `dask scheduler` and "
                'give its address, or use "local".'
            ) from error
        yield stack.enter_context(client)


def _run(
    distributed: ModuleType, client: Any, function: Callable[[Task], Any], queue: Iterator[Task], ahead: int
) -> Iterator[tuple[Task, Any]]:
    """`each`, with `ahead` tasks under way at a time; one whose workers were killed comes with `WorkerDied`."""
    submit = lambda task: client.submit(function, task, pure=False)  # noqa: E731
    running = {submit(task): task for task in itertools.islice(queue, ahead)}
    finished = distributed.as_completed(list(running))
    for future in finished:
        error = future.exception()
        if isinstance(error, distributed.KilledWorker):
            error = WorkerDied(
                "the workers given it were killed; memory is the likely cause. Give them more."
            )
        yield running.pop(future), error if error is not None else future.result()
        for task in itertools.islice(queue, 1):
            following = submit(task)
            running[following] = task
            finished.add(following)
