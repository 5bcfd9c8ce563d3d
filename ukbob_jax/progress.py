"""Progress that suits where it is shown: a bar on a terminal, now and then a line in a job's log."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LOG_EVERY_SECONDS = 15.0


class Progress:
    """How much of a piece of work is done, how fast it goes and how long the rest will take, on stderr."""

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        unit: str = "scan",
        done: int = 0,
        parts: tuple[int, str] | None = None,
    ) -> None:
        """Start counting.

        Args:
            what: name of the work, such as "train".
            total: units in all; None: not known.
            unit: what is counted.
            done: units that an earlier start has done; they do not count for the speed.
            parts: (number, name) of what a unit consists of, whose rate is shown too: (8, "crop").
        """
        self._what, self._total, self._unit, self._parts = what, total, unit, parts
        self._first = self._done = done
        self._start = self._printed = time.monotonic()
        self._bar = tqdm(desc=what, total=total, initial=done, unit=unit) if sys.stderr.isatty() else None

    def update(self, done: int, text: str = "") -> None:
        """Show that `done` units are done in all; `text` such as "loss 0.51" stands beside."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._done)
        self._done = done
        now = time.monotonic()
        if self._bar is None and (done == self._total or now - self._printed > LOG_EVERY_SECONDS):
            self._printed = now
            print(self.line(text, now - self._start), file=sys.stderr, flush=True)

    def line(self, text: str, seconds: float) -> str:
        """Return one log line: `train: 40/200 step, loss 0.51, 1.3 step/s, 2.6 crop/s, 120 s left`."""
        done, total, unit = self._done, self._total, self._unit
        rate = max(done - self._first, 1) / max(seconds, 1e-9)
        words = [f"{self._what}: {done}{f'/{total}' if total else ''} {unit}", text, f"{rate:.2g} {unit}/s"]
        if self._parts:
            words.append(f"{rate * self._parts[0]:.2g} {self._parts[1]}/s")
        words.append(f"{(total - done) / rate:.0f} s left" if total and done < total else f"{seconds:.0f} s")
        return ", ".join(word for word in words if word)

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()


def track(items: Iterable[T], what: str, total: int | None = None, unit: str = "scan") -> Iterator[T]:
    """Yield `items`, reporting on stderr how many are done, how fast, and when the rest will be."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    progress = Progress(what, total, unit=unit)
    try:
        for done, item in enumerate(items, 1):
            yield item
            progress.update(done)
    finally:
        progress.close()
