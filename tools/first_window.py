"""Run `ukbob segment` up to the first window, and print as JSON when each part of the way was done.

    python -m tools.first_window START -- IN OUT --model WORKDIR

START: the second, as `time.time()` gives it, at which the process was started. The command is the real one, in this
process; what it calls is wrapped to look at the clock. It ends where the first window would be computed.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

CACHED = "/jax/compilation_cache/cache_hits"
COMPILED = "/jax/core/compile/backend_compile_duration"
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing_s",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering_s",
    COMPILED: "cache_or_compile_s",
}


class Watch:
    """Seconds spent in each part, and programs compiled."""

    def __init__(self, start: float) -> None:
        """Begin to count at `start`, seconds of `time.time()`."""
        self.start = start
        self.seconds: dict[str, float] = {}
        self.programs = self.cached = 0

    def around(self, owner: Any, name: str, part: str) -> None:
        """Count the time of calls of `owner.name` as `part`."""
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.add(part, time.perf_counter() - began)

        setattr(owner, name, staticmethod(timed) if hasattr(inner, "__self__") else timed)

    def add(self, part: str, seconds: float) -> None:
        """Count seconds of a part."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def compiled(self, event: str, duration_secs: float, **facts: str | int) -> None:
        """Listen to JAX: the first window runs as soon as its program is there."""
        if event in EVENTS:
            self.add(EVENTS[event], duration_secs)
        if event == COMPILED:
            self.programs += 1
            if "_segment" in str(facts["fun_name"]):
                self.stop()

    def counted(self, event: str, **_: str | int) -> None:
        """Listen to JAX: a program came out of the cache."""
        self.cached += event == CACHED

    def stop(self) -> None:
        """Print what was counted and leave at once, without the hours that the scan may take."""
        total, cpu = time.time() - self.start, time.process_time()
        numbers = {"first_window_s": total, "cpu_s": cpu, **self.seconds}
        counts = {"programs": self.programs, "from_cache": self.cached}
        print(json.dumps({name: round(value, 3) for name, value in numbers.items()} | counts), flush=True)
        os._exit(0)


def main() -> None:
    from ukbob_jax import cli

    watch = Watch(float(sys.argv[1]))
    watch.add("python_s", time.time() - watch.start)
    began = time.perf_counter()
    from ukbob_jax import devices

    use_cache: Callable[[], None] = devices.use_compile_cache

    def ready() -> None:
        import jax

        from ukbob_jax.inference.segmenter import Segmenter
        from ukbob_jax.inference.windows.planning import Planner

        watch.add("imports_s", time.perf_counter() - began)
        jax.monitoring.register_event_duration_secs_listener(watch.compiled)
        jax.monitoring.register_event_listener(watch.counted)
        watch.around(Segmenter, "load", "weights_s")
        watch.around(Segmenter, "_read", "scan_s")
        watch.around(Segmenter, "prepare", "normalise_s")
        watch.around(Planner, "check", "memory_estimate_s")
        use_cache()

    devices.use_compile_cache = ready
    sys.exit(cli.main(["segment", *sys.argv[3:]]))


if __name__ == "__main__":
    main()
