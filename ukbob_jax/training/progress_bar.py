"""How training is going, for somebody who watches: a bar on a terminal, now and then a line in a job's log."""

import sys
import time

from tqdm import tqdm

from ukbob_jax.progress import LOG_EVERY_SECONDS


class Bar:
    """Steps done of `steps`, with the latest loss, throughput and the time left."""

    def __init__(self, *, done: int, steps: int, batch_size: int) -> None:
        self._first, self._done, self._steps, self._batch_size = done, done, steps, batch_size
        self._start = self._printed = time.monotonic()
        self._tqdm = (
            tqdm(desc="train", total=steps, initial=done, unit="step") if sys.stderr.isatty() else None
        )

    def update(self, done: int, text: str) -> None:
        """`done` steps in all; `text` such as "loss 0.51"."""
        if self._tqdm is not None:
            self._tqdm.set_postfix_str(text, refresh=False)
            self._tqdm.update(done - self._done)
        self._done = done
        now = time.monotonic()
        if self._tqdm is None and (done == self._steps or now - self._printed > LOG_EVERY_SECONDS):
            self._printed = now
            print(self.line(text, now - self._start), file=sys.stderr, flush=True)

    def line(self, text: str, seconds: float) -> str:
        """One log line: `train: step 40/200, loss 0.51, 1.3 step/s, 2.6 crop/s, 120 s left`."""
        rate = max(self._done - self._first, 1) / max(seconds, 1e-9)
        left = (self._steps - self._done) / rate
        speed = f"{rate:.2g} step/s, {rate * self._batch_size:.2g} crop/s"
        return f"train: step {self._done}/{self._steps}, {text}, {speed}, {left:.0f} s left"

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._tqdm is not None:
            self._tqdm.close()
