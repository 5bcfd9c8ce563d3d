"""Memory for a scan: estimated once per bucket, and refused with smaller settings."""

import jax
import jax.numpy as jnp
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.windows import memory
from ukbob_jax.inference.windows.planning import HOST_BYTES, Planner
from ukbob_jax.inference.windows.window import Window


@pytest.fixture
def planner(networks):
    model = networks[0]()
    params = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 4, 2)))["params"]
    announced = []
    return Planner(model, (params, {}), 1, announced.append), announced


def test_scans_of_one_bucket_share_an_estimate(planner):
    planner, announced = planner
    window = Window((4, 4, 4), 0.0, batch=2)
    first = planner.check((8, 4, 8, 2), (8, 4, 8), 1, False, window)
    assert planner.check((7, 3, 5, 2), (7, 3, 5), 1, False, window) is first and announced == [first]
    assert first.windows == 4 and first.bucket == (8, 4, 8)
    assert first.sums == 4 * (4 * 8) * 4 * (3 + 1)  # float32, planes, depth, classes and weight
    assert first.scan == 256 * (4 * 2 + 9) + (HOST_BYTES + 8 * 2) * 256
    assert planner.check((8, 4, 8, 2), (8, 4, 8), 1, True, window).network > first.network
    assert len(planner.estimates) == 2


def test_smaller_settings_are_named(planner, monkeypatch):
    planner, announced = planner
    one, without = (
        planner.check((8, 8, 8, 2), (8, 8, 8), 1, adapts, Window((4, 4, 4), batch=1)).total
        for adapts in (True, False)
    )
    assert without < one
    monkeypatch.setattr(memory, "available", lambda device: without)
    with pytest.raises(ConfigError, match="Smaller: no adaptation and a batch of 1 needs"):
        planner.check((8, 8, 8, 2), (8, 8, 8), 1, True, Window((4, 4, 4), batch=8))
    assert len(announced) == 2  # what is refused is not announced
