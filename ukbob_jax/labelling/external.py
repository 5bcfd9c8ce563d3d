"""Labels from an external program: any command that turns an image NIfTI into a label NIfTI."""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from types import FrameType

import numpy as np

from ukbob_jax.errors import ConfigError, FileError, InputError, Preempted
from ukbob_jax.volumes.nifti import check_same_space, read_volume, write_volume
from ukbob_jax.volumes.volume import Volume

INPUT, OUTPUT = "{input}", "{output}"
_LOG_TAIL_CHARS = 300  # of a failed program's output, kept for the message
_POLL_SECONDS = 0.5  # between looks at whether the job is stopping
_stopping = threading.Event()


class ProgramError(InputError):
    """The program failed on a scan, or wrote something other than a label map of it."""


@contextlib.contextmanager
def terminate_on_exit(pool: concurrent.futures.Executor) -> Iterator[None]:
    """Kill the programs that threads of `pool` run, and cancel those still to come, where the block ends early.

    Otherwise Ctrl-C would wait for them, and SIGTERM would leave them running, with copies of scans in the temporary
    folder. A process handles SIGTERM only in its main thread.

    Args:
        pool: of threads that call `Program.label`.

    Raises:
        Preempted: SIGTERM came.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, _on_sigterm) if in_main_thread else None
    try:
        yield
    except BaseException:
        _stopping.set()
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        _stopping.clear()
        if in_main_thread:
            signal.signal(signal.SIGTERM, former)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    raise Preempted("asked to stop; the same command goes on with the scans that are left.")


@dataclasses.dataclass(frozen=True)
class Program:
    """A command, run once per image; no shell is involved, and paths may hold spaces.

    Attributes:
        words: program and arguments; `{input}` and `{output}` in them become the paths of .nii.gz files.
        timeout_s: seconds after which it is killed, with every process it started.
    """

    words: tuple[str, ...]
    timeout_s: float

    @classmethod
    def parse(cls, command: str, timeout_s: float) -> "Program":
        """Read a program from one line, quoted as for a shell.

        Args:
            command: program and arguments with `{input}` and `{output}`.
            timeout_s: of a call, seconds.

        Raises:
            ConfigError: `{input}` or `{output}` is missing, or the program is not installed.
        """
        try:
            words = tuple(shlex.split(command))
        except ValueError as error:
            raise ConfigError(f"labeller.command: {error}: {command}") from error
        for place in (INPUT, OUTPUT):
            if not any(place in word for word in words):
                raise ConfigError(
                    f"labeller.command has no {place}: {command!r}. Put it where the file's path goes."
                )
        if shutil.which(words[0]) is None:
            raise ConfigError(
                f"labeller.command: no program {words[0]!r} here. Install it, or give its full path."
            )
        if not timeout_s > 0:
            raise ConfigError(f"labeller.timeout_s={timeout_s}: must be positive.")
        return cls(words, timeout_s)

    def label(self, image: Volume) -> np.ndarray:
        """The program's label map of `image`, `x y z`, integers, on the grid of `image` in RAS.

        Raises:
            ProgramError: it failed, took too long, wrote nothing, or wrote something else than labels of this image.
        """
        with tempfile.TemporaryDirectory(prefix="ukbob_label_") as folder:
            source, target = (pathlib.Path(folder) / name for name in ("input.nii.gz", "output.nii.gz"))
            write_volume(source, image)
            self._run(source, target, pathlib.Path(folder))
            if not target.is_file():
                raise ProgramError(f"{self.words[0]} ended well but wrote no {OUTPUT}.")
            try:
                labels = read_volume(target, kind="label").to_ras()
                check_same_space(image.to_ras(), labels, "the image", f"what {self.words[0]} wrote")
            except InputError as error:
                raise ProgramError(str(error)) from error
        return labels.array

    def _run(self, source: pathlib.Path, target: pathlib.Path, folder: pathlib.Path) -> None:
        paths = {INPUT: str(source), OUTPUT: str(target)}
        words = [_filled(word, paths) for word in self.words]
        log = folder / "log.txt"
        with open(log, "wb") as output:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
            except OSError as error:
                raise FileError(f"{words[0]}: cannot be started ({error.strerror}).") from error
            try:
                code = self._wait(process)
            finally:
                _end(process)
        if code:
            lines = log.read_bytes()[-_LOG_TAIL_CHARS:].decode(errors="replace").strip().splitlines()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ProgramError(f"{words[0]} {how}: {lines[-1] if lines else 'it said nothing'}")

    def _wait(self, process: subprocess.Popen) -> int:
        until = time.monotonic() + self.timeout_s
        while not _stopping.is_set():
            left = until - time.monotonic()
            if left <= 0:
                raise ProgramError(f"{self.words[0]} took over {self.timeout_s:g} s and was killed.")
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(left, _POLL_SECONDS))
        raise ProgramError(f"{self.words[0]} was stopped.")


def _filled(word: str, paths: dict[str, str]) -> str:
    for place, path in paths.items():
        word = word.replace(place, path)
    return word


def _end(process: subprocess.Popen) -> None:
    """Kill the program and every process it started: all are in its own session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
