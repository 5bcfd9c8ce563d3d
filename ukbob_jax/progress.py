"""Progress that suits where it is shown: a bar on a terminal, now and then a line in a job's log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LOG_EVERY_SECONDS = 15.0


def track(items: Iterable[T], what: str, total: int | None = None, unit: str = "scan") -> Iterator[T]:
    """Yield `items`, telling on stderr how many are done, how fast, and when the rest will be."""
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, unit=unit)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if done == total or now - last > LOG_EVERY_SECONDS:
            last = now
            print(line(what, done, total, now - start, unit), file=sys.stderr, flush=True)


def line(what: str, done: int, total: int | None, seconds: float, unit: str) -> str:
    """One log line: `train: 40/200 step, 1.3 step/s, 120 s left`."""
    rate = done / max(seconds, 1e-9)
    text = f"{what}: {done}{f'/{total}' if total else ''} {unit}, {rate:.2g} {unit}/s"
    return text + (
        f", {(total - done) / rate:.0f} s left" if total and done < total else f", {seconds:.0f} s"
    )
