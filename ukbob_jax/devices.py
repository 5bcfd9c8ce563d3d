"""Before the first computation: platform, compile cache and, for several processes, the coordinator."""

import argparse
import logging
import os
import pathlib
import socket
import time

import jax
import ml_collections

from ukbob_jax.errors import ConfigError

PROBE_SECONDS = 10.0  # an unreachable coordinator is reported before JAX would abort the process (300 s)


def start(config: ml_collections.ConfigDict, options: argparse.Namespace) -> None:
    """Set up JAX as the recipe asks.

    Raises:
        ConfigError: the platform is not there, the cache cannot be written, the coordinator does not answer.
    """
    logging.getLogger("jax").setLevel(logging.ERROR)
    use_compile_cache()
    if options.coordinator:
        join(options.coordinator, options.processes, options.process)
    platform = config.get("platform", "any")
    found = {device.platform for device in jax.devices()}
    if platform not in ("any", *found) and not (platform == "gpu" and "cuda" in found):
        raise ConfigError(
            f"config.platform is {platform!r} but JAX sees only {', '.join(sorted(found))}. "
            "Install ukbob-jax[cuda] or [tpu] and check the driver, or leave --config.platform=any."
        )


def use_compile_cache() -> None:
    """Keep compiled programs in `UKBOB_CACHE` (default: `~/.cache/ukbob_jax`; "off": nowhere).

    Raises:
        ConfigError: the folder cannot be written.
    """
    folder = os.environ.get("UKBOB_CACHE", str(pathlib.Path.home() / ".cache" / "ukbob_jax"))
    if folder == "off":
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
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def join(coordinator: str, processes: int, process: int) -> None:
    """Join a run of several processes; process 0 serves the coordinator, the others must reach it.

    Raises:
        ConfigError: the address is malformed, or nothing answers there within `PROBE_SECONDS`.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--coordinator={coordinator}: expected HOST:PORT, such as node1:12345.")
    if process > 0 and not reachable(host, int(port)):
        raise ConfigError(
            f"--coordinator={coordinator}: no answer within {PROBE_SECONDS:.0f} s. Start process 0 there first, "
            "and check the host name, the port and the firewall."
        )
    jax.distributed.initialize(coordinator, num_processes=processes, process_id=process)


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
