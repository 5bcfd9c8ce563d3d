"""Notice that this job is about to be stopped, in time to save."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from ukbob_jax import stopping

SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTE = b"\nstopping after this step, which is saved; Ctrl-C again ends at once, without it\n"


class Preemption:
    """A context in which SIGTERM, and the first Ctrl-C, set a flag instead of ending the process.

    Where Ctrl-C is ignored, as it is in what a script starts in the background, it stays ignored.

    One process handles the signal itself. With several, JAX's own handler lets all agree on one step to stop at; a
    Python handler would replace it and the agreement would never come.
    """

    def __enter__(self) -> "Preemption":
        self._asked = threading.Event()
        self._agreed = jax.distributed.is_initialized()
        self._ours = not self._agreed and threading.current_thread() is threading.main_thread()
        if self._ours:
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            taken = [number for number in SIGNALS if not (number == signal.SIGINT and ignored)]
            self._former = {number: signal.signal(number, self._notice) for number in taken}
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            for number, former in self._former.items():
                signal.signal(number, former)

    def requested(self, step: int) -> bool:
        """Whether to save and stop after `step`; call it at every step, on every process."""
        if self._agreed:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked.is_set()

    @contextlib.contextmanager
    def interrupting(self, last: Callable[[], object]) -> Iterator[None]:
        """Work that may be given up, such as an evaluation, since a new start does it again.

        A request to stop ends it within seconds (`stopping.SECONDS`), as one that has come already does at once. Of several
        processes, which must agree on where they stop, each does its work to the end.

        Args:
            last: what must be done even if the process has to be ended in the middle of a program, such as writing a
                checkpoint that is under way.
        Raises:
            stopping.Terminated: asked to stop.
        """
        if not self._ours:
            yield
            return
        if self._asked.is_set():
            raise stopping.Terminated
        with stopping.last(last), stopping.ending_soon(SIGNALS):
            yield

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()
        if number == signal.SIGINT:
            signal.signal(number, self._former[signal.SIGINT])
            os.write(2, NOTE)  # not print, which may have been interrupted itself
