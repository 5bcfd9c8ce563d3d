"""What predictions cost: seconds per scan and memory, kept beside scores so that runs can be compared."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax

Made = TypeVar("Made")


class Meter:
    """Times predictions of one process, and knows which of them had to compile a program first."""

    def __init__(self, programs: Callable[[], Mapping[Any, Any]]) -> None:
        """`programs` returns the memory estimates (with `total`, bytes) of the programs compiled so far."""
        self._programs, self._met = programs, set[str]()

    def run(self, kind: str, predict: Callable[[], Made]) -> tuple[Made, dict[str, Any]]:
        """Call `predict`, which blocks until its result is there.

        Args:
            kind: of prediction, such as the method of adaptation: the first of each kind compiles.
            predict: makes one prediction.
        Returns:
            Its result, and JSON values: "seconds" of wall time; "compiled", whether a program was compiled in that time;
            "estimated_bytes", the largest estimate of a program; "peak_bytes" of the device since the process began, or
            on a CPU of the process.
        """
        before, start = len(self._programs()), time.perf_counter()
        made = predict()
        seconds = time.perf_counter() - start
        programs = self._programs()
        compiled = kind not in self._met or len(programs) > before
        self._met.add(kind)
        estimated = max((estimate.total for estimate in programs.values()), default=None)
        return made, {
            "seconds": seconds,
            "compiled": compiled,
            "estimated_bytes": estimated,
            "peak_bytes": peak_bytes(),
        }


def peak_bytes() -> int:
    """Return the most memory in use so far: of the first device where it says so, else of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device() -> str:
    """Return how many devices of which kind there are."""
    found = jax.devices()
    return f"{len(found)} x {found[0].device_kind}"


def summarise(costs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise what `Meter.run` told of the scans of one method: JSON values.

    Returns:
        "timed", how many scans did not compile; "seconds_per_scan", their median, None without one; the largest
        "estimated_bytes" and "peak_bytes".
    """
    found = list(costs)
    seconds = [cost["seconds"] for cost in found if not cost["compiled"]]
    most = {
        name: max((cost[name] for cost in found if cost[name] is not None), default=None)
        for name in ("estimated_bytes", "peak_bytes")
    }
    return {
        "timed": len(seconds),
        "seconds_per_scan": statistics.median(seconds) if seconds else None,
        **most,
    }
