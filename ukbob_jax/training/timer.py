"""Where the time of a run goes."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Timer:
    """Seconds spent in named sections of the loop; what is in no section counts as "other"."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def section(self, name: str, unless: tuple[Callable[[], bool], str] | None = None) -> Iterator[None]:
        """Count the time inside the block under `name`.

        Args:
            name: of the section.
            unless: (condition, other name): where the condition holds at the end of the block, its time counts under
                the other name. Fetching a batch while the device still works on the step before costs nothing.
        """
        start = time.monotonic()
        try:
            yield
        finally:
            name = unless[1] if unless and unless[0]() else name
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    @property
    def total(self) -> float:
        """Seconds since the timer was made."""
        return time.monotonic() - self._start

    def fractions(self) -> dict[str, float]:
        """Return the fraction of the total for each section; they sum to 1."""
        total = max(self.total, 1e-9)
        fractions = {name: seconds / total for name, seconds in self.seconds.items()}
        return {**fractions, "other": max(0.0, 1.0 - sum(fractions.values()))}
