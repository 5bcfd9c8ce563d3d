"""One run at a time in a workdir: a lock that says who holds it, and whether that one is still there.

On the same host the operating system is asked; from another one it is seen by the time of the lock's file, which whoever
holds it renews. Shares of one job (`process` of `processes`) may run beside each other; anything else has the workdir for
itself.
"""

import contextlib
import datetime
import json
import os
import pathlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from ukbob_jax import stopping
from ukbob_jax.errors import ConfigError

LOCK = ".ukbob.lock"
BEAT = 20.0  # seconds after which the lock's file is renewed
ALIVE = 90.0  # seconds without that after which a run on another host counts as gone
_PROC = pathlib.Path("/proc")


@contextlib.contextmanager
def held(workdir: pathlib.Path, job: str, share: str = "", take_over: bool = False) -> Iterator[None]:
    """Hold a workdir while within.

    Args:
        workdir: an existing folder.
        job: what is run, for whoever is refused.
        share: "3-of-16" of a job whose shares run beside each other; "": the whole workdir.
        take_over: also where a run that is gone has left its lock behind; whether one on another host is gone takes up
            to `ALIVE` to see.
    Raises:
        ConfigError: another run holds it, or left without letting go of it; says which process on which host.
    """
    path = workdir / (f"{LOCK}.{_label(job)}.{share}" if share else LOCK)
    mine = json.dumps(_myself(job))
    for other in sorted(workdir.glob(f"{LOCK}*")):
        if other == path or not _beside(path, other):
            _release(workdir, other, take_over)
    try:
        with open(path, "x") as file:
            file.write(mine)
    except FileExistsError as error:  # another one was faster
        raise ConfigError(_refusal(workdir, _holder(path))) from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}. Choose another --workdir."
        ) from error

    def let_go() -> None:
        with contextlib.suppress(OSError):
            if path.read_text() == mine:  # another run may have taken over
                path.unlink()

    try:
        if faster := [o for o in sorted(workdir.glob(f"{LOCK}*")) if o != path and not _beside(path, o)]:
            raise ConfigError(_refusal(workdir, _holder(faster[0])))
        with stopping.last(let_go), _renewing(path):
            yield
    finally:
        let_go()


def share_of(section: Any) -> str:
    """The share that a job's section of a recipe asks for: "3-of-16"; "" where it has the whole."""
    process, processes = getattr(section, "process", 0), getattr(section, "processes", 1)
    return f"{process}-of-{processes}" if isinstance(processes, int) and processes > 1 else ""


def _label(job: str) -> str:
    return re.sub(r"\W", "_", job)


def _beside(path: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether the two are different shares of one job."""
    ours, theirs = (p.name.removeprefix(f"{LOCK}.").rpartition("-of-") for p in (path, other))
    same_job = ours[0].rpartition(".")[0] == theirs[0].rpartition(".")[0]
    return bool(ours[1] and theirs[1]) and same_job and ours[2] == theirs[2] and path != other


def _myself(job: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "job": job,
        "since": f"{now:%Y-%m-%d %H:%M:%S} UTC",
    }


def _holder(path: pathlib.Path) -> dict[str, Any]:
    """Who holds a lock; empty where its file says nothing, as when its writer was killed in between."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _release(workdir: pathlib.Path, path: pathlib.Path, take_over: bool) -> None:
    """Remove a lock whose run is gone, if that is asked for.

    Raises:
        ConfigError: it is not gone, or taking over was not asked for.
    """
    found = _holder(path)
    there = _is_there(path, found, wait=take_over)
    if there or not take_over:
        raise ConfigError(_refusal(workdir, found, there))
    print(f"took {workdir} over from {_who(found)}", file=sys.stderr, flush=True)
    path.unlink(missing_ok=True)


def _refusal(workdir: pathlib.Path, found: dict[str, Any], there: bool = True) -> str:
    if there:
        return f"{workdir}: held by {_who(found)}. Wait for it, stop it, or choose another --workdir."
    return f"{workdir}: held by {_who(found)}, which is gone. Take over with --take-over; what it wrote is gone on with."


def _is_there(path: pathlib.Path, found: dict[str, Any], wait: bool) -> bool:
    """Whether the run that holds a lock still goes on.

    Args:
        path: the lock.
        found: what it says.
        wait: of a run on another host that was there less than `ALIVE` ago, see whether it renews its lock; otherwise it
            counts as there.
    """
    if found.get("host") in (None, socket.gethostname()):
        return _runs(found)
    first = _renewed(path)
    age = _clock(path.parent) - first
    if age > ALIVE or not wait:
        return age <= ALIVE
    print(
        f"waiting up to {ALIVE - age:.0f} s to see whether {_who(found)} is gone", file=sys.stderr, flush=True
    )
    while _renewed(path) == first:
        if _clock(path.parent) - first > ALIVE:
            return False
        time.sleep(min(1.0, ALIVE / 10))
    return path.exists()


def _renewed(path: pathlib.Path) -> float:
    """When a lock was last renewed, s; 0: it is no longer there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _clock(workdir: pathlib.Path) -> float:
    """The time of the file system, s, which hosts that share it see alike."""
    probe = workdir / f".ukbob.clock.{os.getpid()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _renewing(path: pathlib.Path) -> Iterator[None]:
    """Renew the file every `BEAT` seconds, by a thread."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=renew, daemon=True, name="run lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _who(found: dict[str, Any]) -> str:
    if not found:
        return "a run that does not say whose it is"
    return f"a run of {found.get('job')} since {found.get('since')}, process {found.get('process')} on {found.get('host')}"


def _runs(found: dict[str, Any]) -> bool:
    """Whether the process on this host is there, and the same one: numbers are given again."""
    number = found.get("process")
    if not isinstance(number, int) or number <= 0:
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return _started(number) == found.get("started")


def _started(process: int) -> str:
    """When a process was started, by the boot of the machine and its clock; "" where the system does not say."""
    try:
        boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{boot} {fields[19]}" if fields[0] != "Z" else "ended"
