"""The estimate against what XLA says a program takes, and its arithmetic by hand."""

import sys

import jax
import jax.numpy as jnp
import pytest

from ukbob_jax.inference.windows import memory
from ukbob_jax.models.swin_unetr.network import SwinUNETR


def test_arrays_count_while_they_are_needed():
    def chain(x):  # 4 kB each: x is given; y and z live together, then z and w
        y = jnp.sin(x)
        z = jnp.cos(y)
        return jnp.tan(z)

    x = jnp.zeros(1024)
    assert memory.peak(chain, x) == 2 * 4096
    assert memory.peak(lambda x: jnp.sin(x) + jnp.cos(x), x) == 3 * 4096
    assert memory.peak(jax.jit(chain), x) == 2 * 4096
    assert memory.peak(lambda x: jnp.broadcast_to(x, (50, 1024)).sum(0), x) == 4096


def test_only_the_form_of_this_platform_counts():
    def either(x):
        large = lambda x: jnp.sin(jnp.outer(x, x)).sum(0)  # noqa: E731
        return jax.lax.platform_dependent(x, cpu=jnp.sin, default=large)

    assert memory.peak(either, jnp.zeros(1024)) < 5 * 4096


@pytest.mark.slow
def test_the_network_takes_about_what_is_estimated():
    model = SwinUNETR(1, 21, feature_size=12)
    x = jax.ShapeDtypeStruct((2, 32, 32, 32, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    found = jax.jit(model.apply).lower(variables, x).compile().memory_analysis()
    taken = found.temp_size_in_bytes + found.output_size_in_bytes
    assert 0.7 < memory.peak(model.apply, variables, x) / taken < 2  # 36 and 32 MB when this was written


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory is free")
def test_free_memory_is_that_of_the_machine_or_its_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "memory.max")
    device = jax.devices()[0]
    assert 1e7 < memory.available(device) < 1e14
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory.available(device) == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(device) > 1e7


def test_the_first_smaller_setting_that_fits_is_named():
    def plan(network):
        return memory.MemoryEstimate((8, 8, 8), 1, 0, 0, 0, network, 10 * 10**9)

    memory.check(plan(9 * 10**9), {})
    tried = {"A": lambda: plan(11 * 10**9), "B": lambda: plan(4 * 10**9), "C": lambda: plan(1)}
    with pytest.raises(ValueError, match=r"about 20.0 GB .* 10.0 GB are free\. Smaller: B needs 4.0 GB\.$"):
        memory.check(plan(20 * 10**9), tried)
    with pytest.raises(ValueError, match=r"Smaller: A needs 11.0 GB; C needs 12.0 GB\.$"):
        memory.check(plan(20 * 10**9), {"A": tried["A"], "C": lambda: plan(12 * 10**9)})
