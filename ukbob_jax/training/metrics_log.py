"""The numbers of a run: `metrics.jsonl` for what every rerun repeats, `timing.jsonl` for what it does not.

Both and early pictures also go to TensorBoard. A resumed run drops what came after its checkpoint, so the files read
as if it had never stopped.
"""

import contextlib
import io
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import numpy as np
from tensorboardX import SummaryWriter

from ukbob_jax import files
from ukbob_jax.errors import FileError


class MetricsLog:
    """Open files for the numbers of one run; one process of several writes them."""

    def __init__(self, workdir: str | os.PathLike, *, step: int, evaluated: bool = True) -> None:
        """Go on after `step`: later lines of a former start are dropped.

        Where that step is not `evaluated` yet, so are lines of its evaluation, which comes again.
        """
        folder = pathlib.Path(workdir)
        self._metrics = _continue(folder / "metrics.jsonl", step, evaluated)
        self._timing = _continue(folder / "timing.jsonl", step)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else 0)

    def numbers(self, step: int, values: Mapping[str, float | None]) -> None:
        """Reproducible numbers, such as "train/loss"; None or NaN (not defined here) becomes null."""
        self._write(self._metrics, step, values)

    def timing(self, step: int, values: dict[str, float]) -> None:
        """Seconds and rates, which differ from run to run."""
        self._write(self._timing, step, values)

    def pictures(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """`h w 3` uint8 each, to TensorBoard."""
        for name, picture in pictures.items():
            self._board.add_image(name, picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring all lines to the disk; before a checkpoint, so that no line it stands on can be lost.

        Raises:
            FileError: the disk is full.
        """
        for file in (self._metrics, self._timing):
            with _writing(file):
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        """Flush and close; the files are closed on a full disk too.

        Raises:
            FileError: the disk is full.
        """
        parts = (self._metrics, self._timing, self._board)
        try:
            self.flush()
        except FileError:
            for part in parts:
                with contextlib.suppress(OSError):  # of the same full disk
                    part.close()
            raise
        for part in parts:
            part.close()

    def _write(self, file: TextIO, step: int, values: Mapping[str, float | None]) -> None:
        known = {name: float(v) for name, v in values.items() if v is not None and math.isfinite(v)}
        with _writing(file):
            file.write(json.dumps({"step": step, **{name: known.get(name) for name in values}}) + "\n")
        for name, value in known.items():
            self._board.add_scalar(name, value, step)


def lines_until(text: str, step: int, evaluated: bool = True) -> str:
    """The lines of JSON up to `step`; a last line that was cut off in the middle goes too.

    Without `evaluated` those of `step` itself are only its metrics of training.
    """
    kept = io.StringIO()
    for line in text.splitlines():
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError:
            break
        again = row["step"] == step and not evaluated and not any(n.startswith("train/") for n in row)
        if row["step"] <= step and not again:
            kept.write(line + "\n")
    return kept.getvalue()


@contextlib.contextmanager
def _writing(file: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{file.name}: cannot write: {error.strerror}. Free space, then run the same command to resume."
        ) from error


def _continue(path: pathlib.Path, step: int, evaluated: bool = True) -> TextIO:
    before = path.read_text() if path.exists() else ""
    files.write_bytes(path, lines_until(before, step, evaluated).encode())
    return open(path, "a")
