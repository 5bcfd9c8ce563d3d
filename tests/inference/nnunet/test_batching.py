"""Many scans of two models on several devices: every scan gets its own logits, and what ends early disturbs no other."""

import concurrent.futures
import contextlib
import threading

import jax
import numpy as np
import pytest

import ukbob_jax as bob
from tests.inference.nnunet import tiny
from ukbob_jax.errors import ConfigError, InputError, Preempted
from ukbob_jax.inference.adaptation.methods import Method
from ukbob_jax.inference.nnunet import adapting, batching, merge, tile_network
from ukbob_jax.inference.nnunet.batching import TileBatcher
from ukbob_jax.training import sharding
from ukbob_jax.volumes.volume import Volume

pytestmark = pytest.mark.usefixtures("quick_compilation")
SHAPES = ((4, 16, 16), (9, 16, 20), (3, 30, 17))


def batcher(devices=3, batch=2, workers=7, **more) -> TileBatcher:
    mesh = sharding.make_mesh(data=devices, batch_size=devices * batch, devices=jax.devices()[:devices])
    return TileBatcher(mesh, batch, workers, **more)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    made = tiny.folder(place, folds=("0", "1"), change=tiny.narrow, axes=(0, 2), by_torch=False)
    return [bob.nnunet.load(made, folds=folds) for folds in ("0", "0,1")]


def array(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *SHAPES[seed % len(SHAPES)])).astype(np.float32)


def test_every_scan_gets_its_logits_and_devices_hold_few_scans(models, monkeypatch):
    alive, most, lock = {}, {}, threading.Lock()

    class Counted(merge.Ring):
        def __init__(self, *args):
            super().__init__(*args)
            self.device = next(iter(self._sums.logits.devices()))
            with lock:
                alive[self.device] = alive.get(self.device, 0) + 1
                most[self.device] = max(most.get(self.device, 0), alive[self.device])

        def rest(self):
            yield from super().rest()
            with lock:
                alive[self.device] -= 1

    monkeypatch.setattr(merge, "Ring", Counted)
    with batcher(devices=2) as running, concurrent.futures.ThreadPoolExecutor(7) as pool:
        jobs = [
            pool.submit(models[n % 2].running(running.planes).logits, array(n), n % 3 > 0) for n in range(24)
        ]
        found = [job.result() for job in jobs]
        filled = running.filled
    monkeypatch.undo()
    for n, logits in enumerate(found):
        np.testing.assert_allclose(logits, models[n % 2].logits(array(n), n % 3 > 0), atol=2e-5)
    assert len(most) == 2 and max(most.values()) <= 3  # one tile of a scan, and a batch of two
    assert filled.tiles == sum(len(models[0]._lay(array(n)).starts) for n in range(24))
    assert filled.places == filled.batches * 4 >= filled.tiles


def test_a_scan_that_is_given_up_leaves_the_others_alone(models):
    model = models[0]
    with batcher(devices=2, batch=1) as running, concurrent.futures.ThreadPoolExecutor(6) as pool:

        def given_up(n: int) -> None:
            with contextlib.closing(running.planes(model, array(n), model._lay(array(n)), False)) as planes:
                next(planes)
                raise RuntimeError("enough")

        ends = [pool.submit(given_up, n) for n in range(12)]
        found = [pool.submit(model.running(running.planes).logits, array(n)).result() for n in range(3)]
        assert all(isinstance(end.exception(), RuntimeError) for end in ends)
    for n, logits in enumerate(found):
        np.testing.assert_allclose(logits, model.logits(array(n)), atol=2e-5)


def test_a_network_that_fails_and_a_stop_are_heard_by_every_scan_that_waits(models, monkeypatch):
    def fails(*_):
        raise ValueError("broken network")

    monkeypatch.setattr(merge, "add_view", fails)
    with batcher() as running, concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(models[0].running(running.planes).logits, array(n)) for n in range(4)]
        assert {str(job.exception()) for job in jobs} == {"broken network"}
    full = tile_network.told(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 bytes"))
    assert isinstance(full, ConfigError) and "labeller.batch" in str(full)
    begun, go_on = threading.Event(), threading.Event()

    def waits(*_):
        begun.set()
        go_on.wait()
        return np.zeros(0)

    monkeypatch.setattr(batching.TileNetwork, "run", waits)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        with batcher() as running:
            jobs = [pool.submit(models[0].running(running.planes).logits, array(n)) for n in range(4)]
            begun.wait()
            threading.Timer(0.05, go_on.set).start()
            running._deliver = lambda *_: None
        assert {type(job.exception()) for job in jobs} == {Preempted}


def test_slices_and_cascades_run_too(tmp_path):
    scan = Volume(np.random.default_rng(0).normal(size=(20, 12, 18)), np.diag([1.0, 2.0, 1.0, 1.0]))
    slices = tiny.folder(
        tmp_path / "2d", "nnUNetTrainer__nnUNetPlans__2d", change=tiny.flat, axes=(0, 1), by_torch=False
    )
    for name in ("3d_lowres", "3d_cascade_fullres"):
        second = tiny.folder(
            tmp_path, f"nnUNetTrainer__nnUNetPlans__{name}", change=tiny.cascade, by_torch=False
        )
    for folder in (slices, second):
        model = bob.nnunet.load(folder)
        with batcher(devices=2) as running:
            found = model.running(running.planes).predict(scan, mirror=False)
        np.testing.assert_array_equal(found.array, model.predict(scan, mirror=False).array)


def test_a_guard_by_grades_is_refused_before_any_scan_is_read(models):
    graded = Method.parse({"guard": "both", "grader": "runs/grader"})
    with pytest.raises(ConfigError, match=r"etta: guard 'both': models of nnU-Net take 'entropy'\."):
        adapting.check(models[0], graded, "labeller.method")


def test_what_does_not_fit_is_refused_before_it_runs(models, monkeypatch):
    told = []
    with batcher(announce=told.append) as running:
        models[0].running(running.planes).logits(array(1))
        models[0].running(running.planes).logits(array(0))  # smaller: nothing new to tell
    assert len(told) == 1
    one, three = (
        batcher(devices=n).estimate(models[0], (1, 9, 16, 20), models[0]._lay(array(1))) for n in (1, 3)
    )
    assert (
        three.sums == 3 * one.sums and three.network == 3 * one.network
    )  # devices of a CPU share its memory
    step = adapting.gradient_bytes(models[0], Method.parse("etta"))
    with_etta = batcher(beside=step).estimate(models[0], (1, 9, 16, 20), models[0]._lay(array(1)))
    assert with_etta.network == three.network + 3 * step > three.network
    assert adapting.gradient_bytes(models[0], Method.parse("off")) == 0
    monkeypatch.setattr(batching.memory, "available", lambda _: 1000)
    with (
        batcher() as running,
        pytest.raises(InputError, match=r"this scan needs about .*labeller\.batch=1 needs"),
    ):
        models[0].running(running.planes).logits(array(1))
