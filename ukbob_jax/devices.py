"""Before the first computation: platform, compile cache and, for several processes, the coordinator."""

import argparse
import contextlib
import importlib.util
import logging
import math
import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from ukbob_jax.errors import ConfigError

LIBRARY = "xla_cpu_experimental_ynn_fusion_type"  # XLA's flag: what it leaves to YNNPACK
SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"  # XLA's flag, true as it comes
CHANNELS_LAST = (
    "xla_gpu_force_conv_nhwc"  # XLA's flag, false as it comes; known to jaxlib 0.9 to 0.12 at least
)
CACHE_GB = 2.0  # compiled programs that are kept; a program of the paper's network takes some 10 MB
PROBE_SECONDS = 10.0  # an unreachable coordinator is reported before JAX would abort the process (300 s)


def start(config: ml_collections.ConfigDict, options: argparse.Namespace) -> None:
    """Set up JAX as the recipe asks.

    Raises:
        ConfigError: the platform is not there, the cache cannot be written, the coordinator does not answer.
    """
    logging.getLogger("jax").setLevel(logging.ERROR)
    prepare()
    if options.coordinator:
        join(options.coordinator, options.processes, options.process)
    platform = config.get("platform", "any")
    found = {device.platform for device in jax.devices()}
    if platform not in ("any", *found) and not (platform == "gpu" and "cuda" in found):
        raise ConfigError(
            f"config.platform is {platform!r} but JAX sees only {', '.join(sorted(found))}. "
            "Install ukbob-jax[cuda] or [tpu] and check the driver, or leave --config.platform=any."
        )


def prepare() -> None:
    """What every program does before its first computation.

    Raises:
        ConfigError: the cache's folder cannot be written, or its limit is not a positive number.
    """
    use_compile_cache()
    convolve_channels_last()
    tune_cpu()


def tune_cpu() -> None:
    """Choose how XLA compiles for a CPU; read at the first computation.

    Programs are ordered for little memory: the scheduler made for concurrency keeps what recomputation wants to give up.
    From jax 0.12 on there is nothing to choose. Convolutions of planes are not handed to a library that runs them on one
    core. Versions of JAX that were not tried keep their own choice: an unknown flag ends the process. A choice in
    `XLA_FLAGS` stays.
    """
    if jax.__version_info__ < (0, 12):
        _set_flag(SCHEDULER, "false")
    if jax.__version_info__ == (0, 10, 2):
        _set_flag(LIBRARY, "-individual_convolution")


def convolve_channels_last() -> None:
    """Have XLA keep channels last in 3D convolutions on a GPU, as in everything around them; read at the first computation.

    Left alone it turns every map before and after (`tools/compile_for_gpu.py` counts them). Nothing is set without JAX's
    plugin for CUDA, nor for versions of JAX that were not tried: an unknown flag ends the process. A choice in `XLA_FLAGS`
    stays.
    """
    if has_cuda_plugin() and jax.__version_info__ < (0, 13):
        _set_flag(CHANNELS_LAST, "true")


def has_cuda_plugin() -> bool:
    """Whether this JAX can compile for NVIDIA's GPUs; there need not be one."""
    return any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin")))


def _set_flag(name: str, value: str) -> None:
    given = os.environ.get("XLA_FLAGS", "")
    if name not in given:
        os.environ["XLA_FLAGS"] = f"{given} --{name}={value}".strip()


def cache_folder() -> str:
    """Where compiled programs are kept: `UKBOB_CACHE`, by default `~/.cache/ukbob_jax`; "" for "off"."""
    folder = os.environ.get("UKBOB_CACHE", str(pathlib.Path.home() / ".cache" / "ukbob_jax"))
    return "" if folder == "off" else folder


def cache_limit() -> int:
    """Bytes of compiled programs that are kept: `UKBOB_CACHE_GB` in GB, by default `CACHE_GB`.

    Raises:
        ConfigError: it is not a positive number.
    """
    text = os.environ.get("UKBOB_CACHE_GB", str(CACHE_GB))
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = 0.0
    if not 0 < limit < math.inf:
        raise ConfigError(f"UKBOB_CACHE_GB={text}: expected a positive number of GB, such as {CACHE_GB:g}.")
    return int(limit)


def trim_cache(folder: pathlib.Path, limit: int) -> None:
    """Delete the programs not used for longest, until those that are left take at most `limit` bytes.

    JAX has a limit of its own, which needs a further package.
    """
    found = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process has just deleted it
            status = path.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


def use_compile_cache() -> None:
    """Keep compiled programs in `cache_folder()`, at most `cache_limit()` of them, and say so before the first one.

    Raises:
        ConfigError: the folder cannot be written, or the limit is not a positive number.
    """
    limit = cache_limit()
    folder = cache_folder()
    if not folder:
        return
    try:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        probe = pathlib.Path(folder) / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"UKBOB_CACHE: the compile cache {folder} cannot be written ({error.strerror}). "
            "Set UKBOB_CACHE to a writable folder, or to off."
        ) from error
    if not any(pathlib.Path(folder).glob("*-cache")):
        print(
            f"compiled programs are kept in {folder}, at most {limit / 1e9:g} GB", file=sys.stderr, flush=True
        )
    trim_cache(pathlib.Path(folder), limit)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def join(coordinator: str, processes: int, process: int) -> None:
    """Join a run of several processes; process 0 serves the coordinator, the others must reach it.

    Args:
        coordinator: HOST:PORT, or "auto": SLURM, GKE, Cloud TPU, Open MPI tell where and how many.
        processes: in all; with "auto" the cluster's.
        process: number of this one; with "auto" the cluster's.
    Raises:
        ConfigError: the address is malformed, nothing answers there within `PROBE_SECONDS`, or no cluster is found.
    """
    if coordinator == "auto":
        return detect()
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--coordinator={coordinator}: expected HOST:PORT, such as node1:12345.")
    if process > 0 and not reachable(host, int(port)):
        raise ConfigError(
            f"--coordinator={coordinator}: no answer within {PROBE_SECONDS:.0f} s. Start process 0 there first, "
            "and check the host name, the port and the firewall."
        )
    jax.distributed.initialize(coordinator, num_processes=processes, process_id=process)


def several_processes() -> bool:
    """Whether this process is one of several that work together."""
    return jax.distributed.is_initialized()


def on_first_process(action: Callable[[], object]) -> None:
    """Call `action` on process 0 alone; where it refuses, all processes end.

    Raises:
        ConfigError: what `action` raised, or on another process that it did.
    """
    if not several_processes():
        action()
        return
    refused = None
    if jax.process_index() == 0:
        try:
            action()
        except ConfigError as error:
            refused = error
    if multihost_utils.broadcast_one_to_all(np.int32(refused is not None)):
        raise refused or ConfigError("process 0 was refused and says why; this one ends with it.")


def detect() -> None:
    """Join the processes that the cluster's scheduler has started.

    Raises:
        ConfigError: there is no scheduler that JAX knows, or only its batch script runs, not its processes.
    """
    if "SLURM_JOB_ID" in os.environ and "SLURM_STEP_NODELIST" not in os.environ:
        raise ConfigError(
            "--coordinator=auto: in a SLURM job, but not started by srun. Put `srun` before the command."
        )
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--coordinator=auto: no cluster found ({str(error).splitlines()[0]}). "
            "Give --coordinator=HOST:PORT --processes=N --process=I, or leave all three out for one process."
        ) from error


def reachable(host: str, port: int) -> bool:
    """Whether something accepts connections there, asked for up to `PROBE_SECONDS`."""
    deadline = time.monotonic() + PROBE_SECONDS
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=2.0):
                return True
        except OSError:
            time.sleep(0.5)
    return False
