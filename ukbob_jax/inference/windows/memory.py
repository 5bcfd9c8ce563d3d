"""How much memory a prediction needs: estimated before it starts, and refused with smaller settings where it cannot fit.

The network's part is the most that is alive at once in its trace. XLA fuses some of that away and adds copies of its
own, so the figure is an estimate; what the sliding window holds beside it is known exactly.
"""

import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core

from ukbob_jax.errors import ConfigError

# results of these are views of their inputs, or made inside the operation that reads them
_FREE = {"broadcast_in_dim", "iota", "reshape", "squeeze", "expand_dims", "convert_element_type", "transpose"}
_CGROUP = pathlib.Path("/sys/fs/cgroup/memory.max")


class MemoryEstimate(NamedTuple):
    """How much memory a scan needs; bytes."""

    bucket: tuple[int, int, int]  # voxels the scan is padded to: scans of one bucket share a program
    windows: int
    weights: int
    scan: int  # the padded scan and its labels, entropy, confidence
    sums: int  # blended logits of one window's depth
    network: int  # activations of one call
    available: int | None  # None: the device does not say

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.scan + self.sums + self.network

    def __str__(self) -> str:
        """One line for the user."""
        size = " x ".join(map(str, self.bucket))
        room = "" if self.available is None else f" of {gb(self.available)} free"
        return f"bucket {size}: {self.windows} windows, about {gb(self.total)}{room}"


def gb(count: int) -> str:
    """Bytes as text."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def check(estimate: MemoryEstimate, smaller: Mapping[str, Callable[[], MemoryEstimate]]) -> None:
    """Refuse what does not fit, and name the first of the smaller settings that does, or all of them.

    Args:
        estimate: of the scan with its settings.
        smaller: setting to try -> its estimate, in the order of preference.

    Raises:
        ConfigError: it does not fit.
    """
    if estimate.available is None or estimate.total <= estimate.available:
        return
    tried = []
    for setting, make in smaller.items():
        other = make()
        tried.append(f"{setting} needs {gb(other.total)}")
        if other.total <= estimate.available:
            tried = tried[-1:]
            break
    raise ConfigError(
        f"this scan needs about {gb(estimate.total)} (network {gb(estimate.network)}, sums {gb(estimate.sums)}, scan "
        f"{gb(estimate.scan)}), but {gb(estimate.available)} are free. Smaller: {'; '.join(tried) or 'a smaller scan'}."
    )


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def available(device: jax.Device) -> int | None:  # pyright: ignore[reportInvalidTypeForm]
    """Bytes that are free on a device; for the CPU the smaller of the machine's and the container's."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), free)
        limit = _CGROUP.read_text().strip() if _CGROUP.exists() else "max"
    except (OSError, ValueError, AttributeError):  # not Linux
        return None
    return free if limit == "max" else min(free, int(limit))


def peak(function: Callable, *arguments: Any) -> int:
    """Most bytes alive at once while `function` runs on arrays of these shapes, beside its arguments."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return _peak(jaxpr, jax.default_backend()) - sum(_bytes(v) for v in jaxpr.invars)


def _peak(jaxpr: Any, platform: str) -> int:
    last: dict[Any, int] = {}
    for i, equation in enumerate(jaxpr.eqns):
        last |= {v: i for v in equation.invars if not isinstance(v, core.Literal)}
    last |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    size = {v: _bytes(v) for v in (*jaxpr.invars, *jaxpr.constvars)}
    alive = most = sum(size.values())
    inputs, branches = set(size), {}
    for i, equation in enumerate(jaxpr.eqns):
        if equation.primitive.name == "platform_index":
            branches[equation.outvars[0]] = _branch(equation.params["platforms"], platform)
        out = {v: 0 if equation.primitive.name in _FREE else _bytes(v) for v in equation.outvars}
        inner = [_peak(sub, platform) - _ends(sub) for sub in _subs(equation, branches)]
        most = max(most, alive + sum(out.values()) + max(inner, default=0))
        size |= out
        alive += sum(out.values())
        for v in {v for v in (*equation.invars, *equation.outvars) if not isinstance(v, core.Literal)}:
            if last.get(v, i) == i and v not in inputs:
                alive -= size.pop(v, 0)
    return most


def _branch(platforms: Any, platform: str) -> int:
    """Which of the forms of `jax.lax.platform_dependent` runs here; None stands for all other platforms."""
    return next((i for i, names in enumerate(platforms) if names is None or platform in names), 0)


def _ends(jaxpr: Any) -> int:
    """Bytes of what goes in and comes out, which the caller counts."""
    return sum(_bytes(v) for v in (*jaxpr.invars, *jaxpr.outvars))


def _subs(equation: Any, branches: Mapping[Any, int]) -> list[Any]:
    """The programs inside an equation; of a choice by platform only the one that runs here."""
    index = equation.invars[0] if equation.invars else None
    if equation.primitive.name == "cond" and not isinstance(index, core.Literal) and index in branches:
        return [equation.params["branches"][branches[index]].jaxpr]
    programs = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(item, "jaxpr", item)
            if hasattr(jaxpr, "eqns"):
                programs.append(jaxpr)
    return programs


def _bytes(variable: Any) -> int:
    aval = variable.aval
    if not hasattr(aval, "dtype") or not hasattr(aval, "shape"):
        return 0
    return math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 4)
