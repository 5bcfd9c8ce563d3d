"""How many programs a prediction compiles: each costs a user time before the first window, so none may be added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny_network
from ukbob_jax.inference.options import PredictOptions
from ukbob_jax.inference.segmenter import Segmenter
from ukbob_jax.inference.windows import averaging
from ukbob_jax.models.card import ModelCard
from ukbob_jax.volumes.volume import Volume

LABELS = {0: "background", 1: "liver", 2: "spleen"}


@pytest.fixture
def compiled():
    """The names of the programs that are compiled or come from the cache."""
    names = []

    def listen(event: str, duration_secs: float, **facts: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(facts["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def make(width: int) -> Segmenter:
    """A segmenter of a width that no other test has, so that its programs are new."""
    model = tiny_network.Tiny(1, len(LABELS), width=width)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))["params"]
    card = ModelCard.of(model, labels=LABELS, normalize="window:0:1", contrasts=("water",), window=(8, 8, 8))
    return Segmenter(model, params, card)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return make(3)


def test_a_network_is_traced_once_for_memory_and_program(monkeypatch):
    segmenter, traces, pool = make(5), [], tiny_network.nn.avg_pool
    monkeypatch.setattr(tiny_network.nn, "avg_pool", lambda *args: traces.append(1) or pool(*args))
    segmenter.predict(Volume(np.random.default_rng(0).random((10, 9, 14), np.float32), np.eye(4)))
    assert len(traces) == 1


@pytest.mark.parametrize(
    "options, programs",
    [
        (PredictOptions(), ["jit(_segment)"]),
        (PredictOptions(views=averaging.MIRRORED), ["jit(_segment)"]),
        (PredictOptions(method="etta", overlap=0.25), ["jit(_adapt)", "jit(_segment)"]),
    ],
    ids=["plain", "mirrored", "adapted"],
)
def test_a_scan_compiles_its_program_and_another_of_the_bucket_none(segmenter, compiled, options, programs):
    volume = np.random.default_rng(0).random((10, 9, 14), np.float32)
    segmenter.predict(Volume(volume, np.eye(4)), options)
    assert compiled == programs
    segmenter.predict(Volume(volume[:-1, :, 1:], np.eye(4)), options)
    assert compiled == programs


def test_adapted_parameters_take_the_program_of_the_networks_own(compiled):
    """A checkpoint's parameters are bound to a device, and a refused adaptation returns them."""
    fresh = make(6)
    segmenter = Segmenter(fresh.model, jax.device_put(fresh.params, jax.devices()[0]), fresh.card)
    scan = Volume(np.random.default_rng(0).random((10, 9, 14), np.float32), np.eye(4))
    compiled.clear()
    for method in ("off", "etta"):
        adaptation = segmenter.predict(scan, PredictOptions(method=method)).report["adaptation"]
    assert adaptation["accepted"] and compiled == ["jit(_segment)", "jit(_adapt)"]
