"""Work on all cores by processes that may die: a killed worker costs a retry, never the run."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ukbob_jax import console
from ukbob_jax.errors import ConfigError, UkbobError

Task = TypeVar("Task")


class WorkerDied(UkbobError):
    """The process that worked on a task was killed, twice, the second time alone with it."""


def each(function: Callable[[Task], Any], tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, Any]]:
    """Yield each task with the result of `function(task)`, or with the exception it raised, as they finish.

    When a worker dies (for memory, mostly), everything that was under way is tried again, each task in a process of
    its own; one that kills that too comes back as `WorkerDied`. The workers stop with the process that started them,
    however it ends.

    Args:
        function: importable by name, as are the tasks' classes: workers are spawned.
        workers: processes; 1 works in this process.
    """
    queue = collections.deque(tasks)
    if workers <= 1:
        while queue:
            task = queue.popleft()
            yield task, _call(function, task)
    while queue:
        suspects = []
        for task, future in _run(function, queue, workers):
            if isinstance(future.exception(), BrokenProcessPool):
                suspects.append(task)
            else:
                yield task, future.exception() or future.result()
        for suspect in suspects:
            [(task, future)] = _run(function, collections.deque([suspect]), 1)
            if isinstance(future.exception(), BrokenProcessPool):
                yield (
                    task,
                    WorkerDied(
                        "the process working on it was killed, twice; memory is the likely cause. Use fewer workers."
                    ),
                )
            else:
                yield task, future.exception() or future.result()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _call(function: Callable[[Task], Any], task: Task) -> Any:
    try:
        return function(task)
    except Exception as error:
        return error


def _run(
    function: Callable[[Task], Any], queue: collections.deque[Task], workers: int
) -> Iterator[tuple[Task, Future]]:
    """Take tasks from `queue` and yield them with their futures, until it is empty or a worker has died."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)
    running: dict[Future, Task] = {}
    broken = False
    try:
        while running or (queue and not broken):
            while queue and len(running) < 2 * workers and not broken:
                try:
                    running[pool.submit(function, queue[0])] = queue[0]
                    queue.popleft()
                except BrokenProcessPool:
                    broken = True
            for future in concurrent.futures.wait(running, return_when="FIRST_COMPLETED").done:
                broken |= isinstance(future.exception(), BrokenProcessPool)
                yield running.pop(future), future
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """End this worker when its parent is gone, and leave Ctrl-C to the parent; warn as the parent does."""
    warnings.showwarning = console.warn
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def shard(subjects: Sequence[str], process: int, processes: int) -> list[str]:
    """Return the subjects that one of several processes works on: every `processes`th from `process` on.

    Raises:
        ConfigError: there is no such process.
    """
    if not 0 <= process < processes:
        raise ConfigError(f"process {process} of {processes}: must be 0 to {processes - 1}.")
    return list(subjects[process::processes])
