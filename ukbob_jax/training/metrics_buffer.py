"""The steps since the last line of the log: their metrics stay on the device until somebody asks."""

import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ukbob_jax.errors import UkbobError
from ukbob_jax.training.step import STEP_METRICS


class NonFinite(UkbobError):
    """Loss or gradient was not finite in too many steps in a row."""


class MetricsBuffer:
    """Metrics of the latest steps, read back all at once, so that no step waits for the host."""

    def __init__(
        self, workdir: str | os.PathLike, rows: Sequence[dict], subjects: Sequence[str], stop_after: int
    ) -> None:
        """Start with the `rows` that a checkpoint held; non-finite steps are listed in `workdir`."""
        self._rows = list(rows)  # on the host
        self._waiting: list[tuple[dict[str, jax.Array], jax.Array | None]] = []  # on the device
        self._list = pathlib.Path(workdir) / "nonfinite.jsonl"
        self._subjects = subjects
        self._stop_after = stop_after

    def add(self, metrics: dict[str, jax.Array], subject: jax.Array | None) -> None:
        """Add the metrics of one more step, and the numbers of the subjects it saw."""
        self._waiting.append((metrics, subject))

    def wait_for_all_but(self, steps: int) -> None:
        """Wait until no more than the last `steps` are unfinished; their numbers stay on the device."""
        if len(self._waiting) > steps:
            jax.block_until_ready(self._waiting[-1 - steps][0])

    def busy(self) -> bool:
        """Return whether the device still works on a step."""
        last: Any = self._waiting[-1][0].values() if self._waiting else ()
        return not all(value.is_ready() for value in last)

    def rows(self, step: int) -> list[dict[str, float]]:
        """Return the metrics of each step since the last summary, on the host; the last one is `step`.

        Raises:
            NonFinite: as many steps in a row as allowed were skipped.
        """
        on_host = jax.device_get([metrics for metrics, _ in self._waiting])
        fresh = [{name: value.item() for name, value in row.items()} for row in on_host]
        for number, (row, (_, subject)) in enumerate(zip(fresh, self._waiting), step + 1 - len(fresh)):
            if row["skipped"]:
                self._note(number, row, subject)
        self._rows += [{name: v if np.isfinite(v) else None for name, v in row.items()} for row in fresh]
        self._waiting = []
        return self._rows

    def summary(self, step: int) -> dict[str, float | None]:
        """Return what to log of the steps since the last summary, and start afresh.

        Every metric is the mean over the steps that were finite, and in which it was; `learning_rate` is the last
        step's, and `skipped` a number of steps. First come the loss and the gradient's norm, then the objective's own.

        Raises:
            NonFinite: as many steps in a row as allowed were skipped.
        """
        rows = self.rows(step)
        self._rows = []
        own = sorted({name for row in rows for name in row} - set(STEP_METRICS))
        finite = [row for row in rows if not row["skipped"]]
        means = {name: _mean([row.get(name) for row in finite]) for name in ("loss", "grad_norm", *own)}
        skipped = sum(row["skipped"] for row in rows)
        return {**means, "learning_rate": rows[-1]["learning_rate"], "skipped": skipped}

    def _note(self, step: int, row: dict[str, Any], subject: jax.Array | None) -> None:
        numbers = (
            [] if subject is None else [int(n) for s in subject.addressable_shards for n in np.ravel(s.data)]
        )
        names = [self._subjects[n] if n < len(self._subjects) else str(n) for n in dict.fromkeys(numbers)]
        where = f"step {step} ({', '.join(names) or 'subjects not known'})"
        with open(self._list, "a") as file:
            file.write(json.dumps({"step": step, "subjects": names}) + "\n")
        if row["skipped_in_row"] >= self._stop_after:
            raise NonFinite(
                f"{where}: loss or gradient was not finite in {row['skipped_in_row']} steps in a row; the last "
                f"checkpoint is from before. All such steps are in {self._list}. Look at these subjects, or lower "
                "optimizer.learning_rate."
            )
        print(f"warning: {where}: loss or gradient is not finite; skipped.", file=sys.stderr)


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are numbers; None: none is."""
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None
