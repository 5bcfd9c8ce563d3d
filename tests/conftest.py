"""What all tests share: eight fake devices, a cache of compiled programs, and the folder of reference values."""

import gc
import os
import pathlib
import tempfile
import threading

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest
from jax._src import lru_cache

from ukbob_jax import devices

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Of all workers of pytest-xdist, and beside it one of the programs that each worker's tests start.
CACHE = pathlib.Path(
    os.environ.get("UKBOB_TEST_CACHE", os.path.join(tempfile.gettempdir(), "ukbob_jax_test_xla"))
)
# XLA: one emitter of kernels less to go through (more than half of the time), and one module for LLVM.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
STARTED = CACHE / f"started_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
STARTED.mkdir(parents=True, exist_ok=True)
(STARTED / "none-cache").touch()  # an empty cache is told on stderr, where tests count lines
os.environ["UKBOB_CACHE"] = str(STARTED)


def put(self: lru_cache.LRUCache, key: str, value: bytes) -> None:
    """As JAX's own, whose writes are not atomic, so that another worker can find half a program."""
    path = self.path / f"{key}-cache"
    if not path.exists():
        part = self.path / f"{os.getpid()}-{threading.get_ident()}-part"
        part.write_bytes(value)
        part.replace(path)


lru_cache.LRUCache.put = put
devices.tune_cpu()  # as programs do
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_configure(config: pytest.Config) -> None:
    """Without slow tests, programs compile with few optimizations, in a quarter of the time; the started ones too.

    `-m slow` and `-m ""` compile as users do.
    """
    if config.option.markexpr == "not slow":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
        if jax.__version_info__ == (0, 10, 2):  # an unknown flag ends the process
            os.environ["XLA_FLAGS"] += f" {QUICK}"
    jax.numpy.zeros(())  # from here on the cache lies there, whatever a program under test sets


def pytest_collection_finish(session: pytest.Session) -> None:
    """What lives as long as the tests is not searched for garbage again and again: a third of the time of tracing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(autouse=True)
def keep_every_program():
    """Most of the thousands of programs compile in a fraction of a second; programs under test do not keep such ones."""
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module")
def quick_compilation():
    """Without most optimizations also among the slow tests: for programs that run for a moment."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ)


@pytest.fixture(scope="module")
def full_optimization():
    """For programs that run for longer than they compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ)


@pytest.fixture(scope="session")
def reference() -> pathlib.Path:
    """Folder of values computed by independent tools; `UKBOB_REFERENCE` overrides where it is."""
    folder = pathlib.Path(os.environ.get("UKBOB_REFERENCE", ROOT.parent / "shared" / "reference"))
    if not (folder / "README.md").is_file():
        pytest.skip("no reference folder here; set UKBOB_REFERENCE to its path")
    return folder
