"""Where the time of a run goes."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Clock:
    """Seconds spent in named parts of the loop; what is in no part counts as "other"."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str, beside: tuple[str, Callable[[], bool]] | None = None) -> Iterator[None]:
        """Count the time inside the block under `name`.

        `beside`, (part, still): if `still()` holds at the end, that part went on all the while, and it gets the time.
        """
        start = time.monotonic()
        try:
            yield
        finally:
            name = beside[0] if beside and beside[1]() else name
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    @property
    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._start

    def shares(self) -> dict[str, float]:
        """Share of the total for each part; they sum to 1."""
        total = max(self.total, 1e-9)
        shares = {name: seconds / total for name, seconds in self.seconds.items()}
        return {**shares, "other": max(0.0, 1.0 - sum(shares.values()))}
