"""SIGTERM is answered within seconds, also while a compiled program runs for minutes.

Python calls a signal's handler between two of its own instructions, so that one which arrives while a whole scan is in a
compiled program would wait for its end. A thread that the operating system wakes waits beside it and ends the process.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from ukbob_jax.errors import Preempted

SECONDS = (
    8.0  # that the program has to end in its own way; a cluster's scheduler often gives 30 before SIGKILL
)
NOTE = b"ukbob: stopped as asked; the same command goes on from what is written.\n"
_LAST: list[Callable[[], object]] = []


class Terminated(BaseException):
    """Asked to stop. No `Exception`, so that a loop which notes failures and goes on does not take it for one."""


@contextlib.contextmanager
def last(callback: Callable[[], object]) -> Iterator[None]:
    """Within it, `callback` is called before the process is ended from outside its own course, such as to unlock."""
    _LAST.append(callback)
    try:
        yield
    finally:
        _LAST.remove(callback)


@contextlib.contextmanager
def ending_soon(
    signals: Sequence[signal.Signals] = (signal.SIGTERM,), seconds: float = SECONDS
) -> Iterator[None]:
    """Within it, a signal raises `Terminated` in the main thread, and after `seconds` ends the process with code 75.

    The latter where the main thread has not come to an end by then; what is written file by file stays whole. Handlers
    that others set within it count for themselves. Nothing happens outside the main thread, or for signals that are
    ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    ended = threading.Event()

    def notice(number: int, frame: FrameType | None) -> None:
        for other in asked:
            signal.signal(other, passed_over)  # the first one counts; what cleans up is not interrupted
        raise Terminated(f"signal {number}")

    def passed_over(number: int, frame: FrameType | None) -> None:
        pass

    def wait() -> None:
        while woken := os.read(reading, 1):
            ours = woken[0] in asked and signal.getsignal(woken[0]) in (notice, passed_over)
            if ours and not ended.wait(seconds):
                _end()

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(target=wait, daemon=True, name="stopping")
    thread.start()
    former = {number: signal.signal(number, notice) for number in asked}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in former.items():
            signal.signal(number, handler)
        os.close(writing)
        thread.join()
        os.close(reading)


def _end() -> None:
    """End the process at once, after what must be done last."""
    for callback in reversed(_LAST):
        with contextlib.suppress(Exception):
            callback()
    with contextlib.suppress(OSError):
        os.write(2, NOTE)
    os._exit(Preempted.exit_code)
