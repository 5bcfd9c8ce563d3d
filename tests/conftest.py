"""What all tests share: eight fake devices, a compile cache, and the folder of reference values."""

import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest

from ukbob_jax import devices

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Of the tests and of the programs that they start. One per worker of pytest-xdist: JAX's writes are not atomic.
CACHE = pathlib.Path(
    os.environ.get("UKBOB_TEST_CACHE", os.path.join(tempfile.gettempdir(), "ukbob_jax_test_xla"))
    + os.environ.get("PYTEST_XDIST_WORKER", "")
)
CACHE.mkdir(parents=True, exist_ok=True)
(CACHE / "none-cache").touch()  # an empty cache is told on stderr, where tests count lines
os.environ["UKBOB_CACHE"] = str(CACHE)

devices.tune_cpu()  # as programs do
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="module")
def quick_compilation():
    """Programs that run for a moment but are compiled for a minute: without optimization it is half of that."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def reference() -> pathlib.Path:
    """Folder of values computed by independent tools; `UKBOB_REFERENCE` overrides where it is."""
    folder = pathlib.Path(os.environ.get("UKBOB_REFERENCE", ROOT.parent / "shared" / "reference"))
    if not (folder / "README.md").is_file():
        pytest.skip("no reference folder here; set UKBOB_REFERENCE to its path")
    return folder
