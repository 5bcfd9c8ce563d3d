import jax
import numpy as np
import pytest

from tests.training import toy
from ukbob_jax.training import sharding

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(data=1, batch_size=8)


def test_the_loss_falls_and_the_rate_follows_the_schedule(mesh):
    state, metrics = toy.run(mesh, steps=20)
    losses = [m["loss"] for m in metrics]
    assert losses[-1] < 0.6 * losses[0]
    assert state.step == 20 and state.skipped == 0
    np.testing.assert_allclose([m["learning_rate"] for m in metrics[:2]], [0.01, 0.02], rtol=1e-6)


def test_the_same_key_draws_the_same_and_another_draws_otherwise(mesh):
    model = toy.Net(dropout=0.5)
    runs = [toy.run(mesh, model=model, seed=seed)[1][-1]["loss"] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_augmentation_gets_another_key_at_every_step(mesh):
    def augment(key, batch):
        shift = jax.random.normal(key)
        return {**batch, "image": batch["image"] + 10 * shift}

    plain = toy.run(mesh, learning_rate=0.0)[1]
    moved = toy.run(mesh, learning_rate=0.0, augment=augment)[1]
    changes = {round(float(a["loss"] - b["loss"]), 5) for a, b in zip(plain, moved)}
    assert len(changes) == 3 and 0 not in changes


def test_running_statistics_are_part_of_the_state(mesh):
    state, _ = toy.run(mesh, model=toy.Net(batch_norm=True))
    assert set(state.model_state) == {"batch_stats"}
    assert np.any(state.model_state["batch_stats"]["batch_norm"]["mean"])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(mesh, poison):
    init, step = toy.parts(toy.Net(batch_norm=True))
    step, key = jax.jit(step), jax.random.key(0)
    before, _ = step(init(key), toy.batch(0), key)
    bad = toy.batch(1)
    bad["image"][0, 0, 0, 0, 0] = poison
    after, metrics = step(before, bad, key)
    for name in ("params", "model_state", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert (after.step, after.skipped, after.skipped_in_row) == (2, 1, 1)
    assert metrics["skipped"] == 1 and not np.isfinite(metrics["grad_norm"])
    again, metrics = step(after, toy.batch(2), key)
    assert (again.skipped, again.skipped_in_row, metrics["skipped"]) == (1, 0, 0)
    assert np.any(again.params["head"]["kernel"] != before.params["head"]["kernel"])


def test_partly_annotated_cases_reach_the_loss(mesh):
    init, step = toy.parts()
    key = jax.random.key(0)
    annotated = np.ones((8, toy.CLASSES), bool)
    some = annotated & (np.arange(toy.CLASSES) != 2)  # not in place: the step may still be reading
    whole, part = (
        jax.jit(step)(init(key), {**toy.batch(0), "annotated": known}, key)[1]["loss"]
        for known in (annotated, some)
    )
    assert part < whole


@pytest.mark.parametrize("passes", [2, 4])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_accumulated_passes_give_the_step_of_the_whole_batch(mesh, passes, batch_norm):
    if batch_norm:  # its statistics are of one pass, so only a loss that is finite and falls can be asked for
        losses = [m["loss"] for m in toy.run(mesh, 20, toy.Net(batch_norm=True), accumulate=passes)[1]]
        assert losses[-1] < 0.6 * losses[0]
        return
    whole, expected = toy.run(mesh, steps=3)
    state, metrics = toy.run(mesh, steps=3, accumulate=passes)
    for found, wanted in zip(metrics, expected):  # sums in another order: float32 rounding
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
        np.testing.assert_allclose(found["grad_norm"], wanted["grad_norm"], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state.params, whole.params
    )


def test_accumulation_works_on_split_batches_and_with_partly_annotated_cases():
    annotated = np.ones((8, toy.CLASSES), bool)
    annotated[:, 2] = False
    batches = [{**toy.batch(0), "annotated": annotated}]
    runs = [
        toy.run(
            sharding.make_mesh(data=4 // passes, fsdp=2, batch_size=8), batches=batches, accumulate=passes
        )
        for passes in (1, 2)
    ]
    np.testing.assert_allclose(runs[1][1][0]["loss"], runs[0][1][0]["loss"], rtol=1e-5)


def test_passes_draw_different_dropout(mesh):
    same = {
        name: np.repeat(rows[:4], 2, axis=0) for name, rows in toy.batch(0).items()
    }  # both passes see this
    model = toy.Net(dropout=0.5)
    key = jax.random.key(0)
    losses = []
    for passes in (1, 2):
        init, step = toy.parts(model, accumulate=passes)
        half = {name: rows[::2] for name, rows in same.items()}
        losses.append(jax.jit(step)(init(key), half if passes == 1 else same, key)[1]["loss"])
    assert losses[0] != losses[1]


def test_the_average_follows_the_parameters_by_its_formula(mesh):
    init, step = toy.parts(ema=0.3)
    step, key = jax.jit(step), jax.random.key(0)
    state = init(key)
    expected = state.params["head"]["kernel"]
    np.testing.assert_array_equal(state.ema["head"]["kernel"], expected)
    for number in range(4):
        state, _ = step(state, toy.batch(number), key)
        decay = min(0.3, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * state.params["head"]["kernel"]
    np.testing.assert_allclose(state.ema["head"]["kernel"], expected, rtol=1e-5, atol=1e-7)
    assert state.inference_params is state.ema
    bad = toy.batch(9)
    bad["image"][0] = np.nan
    after, _ = step(state, bad, key)
    jax.tree.map(np.testing.assert_array_equal, after.ema, state.ema)
    assert toy.run(mesh, steps=1)[0].ema == {}
