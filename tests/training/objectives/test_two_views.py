"""Learning without labels through the same loop: two crops of one subject shall look alike to the network.

The objective is a toy: a student's mean feature of one view predicts that of a teacher, the running average of the
student, for the other view, against those of the other subjects of the pass.
"""

import functools
import json
import os
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.conftest import stream
from ukbob_jax.errors import ConfigError, Preempted
from ukbob_jax.training import loop, optimizer, sharding
from ukbob_jax.training import state as states
from ukbob_jax.training.checkpoints import restore_params
from ukbob_jax.training.step import train_step

VIEWS, SAMPLES = 2, 4


class Encoder(nn.Module):
    """Images `b x y z c` to features `b d` of length 1."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.gelu(nn.Dense(16)(jnp.concatenate([x.mean(axis=(1, 2, 3)), x.std(axis=(1, 2, 3))], axis=-1)))
        x = nn.Dense(8)(x)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def agreement(params, state, batch, key):
    """The objective."""
    image = batch["image"].reshape(-1, VIEWS, *batch["image"].shape[1:])  # b v x y z c
    student = Encoder().apply({"params": params}, image[:, 0])
    teacher = jax.lax.stop_gradient(Encoder().apply({"params": state.ema}, image[:, 1]))
    scores = student @ teacher.T / 0.2  # b b: who of the teacher's belongs to whom
    right = jnp.arange(len(scores))
    loss = -jnp.mean(jax.nn.log_softmax(scores)[right, right])
    spread = jnp.std(student, axis=0).mean()
    return loss, (state.model_state, {"accuracy": jnp.mean(scores.argmax(axis=1) == right), "spread": spread})


def shaken(key, batch):
    """The augmentation: noise of each row's own."""
    return {**batch, "image": batch["image"] + 0.05 * jax.random.normal(key, batch["image"].shape)}


def evaluation(state):
    """How far the student is from its teacher: small is good."""
    apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.params, state.ema)
    return {"val/distance": float(max(jax.tree.leaves(apart)))}, {}


def fit(
    workdir, store, steps=12, batches=None, evaluate=evaluation, best=("val/distance", "min"), accumulate=1
):
    tx = optimizer.build(learning_rate=0.01, steps=40)
    return loop.fit(
        loop.Run(
            workdir=workdir,
            mesh=sharding.make_mesh(data=1, batch_size=VIEWS * SAMPLES),
            schedule=loop.Schedule(steps=steps, log_every=4, eval_every=4, checkpoint_every=4, best=best),
            seed=5,
            batch_size=VIEWS * SAMPLES,
            meta={},
            recipe={"seed": 5},
            subjects=[f"s{n}" for n in range(5)],
            name="pretrain",
        ),
        init=functools.partial(
            states.init, variables=states.variables_of(Encoder(), (1, 8, 8, 8, 3)), optimizer=tx, ema=True
        ),
        step=functools.partial(
            train_step,
            objective=agreement,
            optimizer=tx,
            augment=shaken,
            ema=0.9,
            views=VIEWS,
            accumulate=accumulate,
        ),
        batches=functools.partial(crops, store) if batches is None else batches,
        evaluate=evaluate,
    )


def crops(store, start_step):
    return stream(store, label=None, views=VIEWS, max_shift=2, batch_size=SAMPLES, start_step=start_step)


@pytest.fixture(scope="module")
def calm(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two_views")
    return workdir, fit(workdir, store, steps=40)


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_it_trains_and_logs_its_own_numbers(calm):
    logged = [row for row in rows(calm[0]) if "train/loss" in row]
    assert list(logged[0]) == [
        *("step", "train/loss", "train/grad_norm", "train/accuracy", "train/spread"),
        *("train/learning_rate", "train/skipped"),
    ]
    assert logged[-1]["train/loss"] < logged[0]["train/loss"]
    assert all(0 <= row["train/accuracy"] <= 1 and row["train/spread"] > 0 for row in logged)


def test_the_smallest_number_of_the_evaluation_is_the_best(calm, store, tmp_path):
    distances = iter([3.0, 1.0, 2.0])
    fit(tmp_path, store, evaluate=lambda state: ({"val/distance": next(distances)}, {}))
    assert restore_params(tmp_path / "checkpoints")[2]["step"] == 8
    assert restore_params(tmp_path / "checkpoints", "latest")[2]["step"] == 12
    distances = iter([1.0, 3.0, 2.0, 4.0])
    fit(tmp_path / "kept", store, steps=16, evaluate=lambda state: ({"val/distance": next(distances)}, {}))
    assert sorted(path.name for path in (tmp_path / "kept" / "checkpoints").iterdir()) == [
        "step_00000004",
        "step_00000012",
        "step_00000016",
    ]


def test_it_resumes_bit_for_bit_and_says_its_name(store, tmp_path, capfd):
    def stopping(start_step):
        for number, batch in enumerate(crops(store, start_step), start_step + 1):
            if number == 8:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    whole = fit(tmp_path / "calm", store)
    with pytest.raises(Preempted):
        fit(tmp_path / "stopped", store, batches=stopping)
    again = fit(tmp_path / "stopped", store)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "calm")
    messages = capfd.readouterr().err
    assert "pretrain: resumed at step" in messages and "pretrain: 12 steps done" in messages
    assert "train: " not in messages.replace("pretrain: ", "")


def test_both_views_of_a_sample_stay_in_one_pass(store, tmp_path):
    """Else the objective would compare different subjects, and its accuracy would be that of guessing."""
    seen = []

    def record(params, state, batch, key):
        jax.debug.callback(lambda mean: seen.append(np.asarray(mean)), batch["image"][:, 0, 0, 0, 0])
        return agreement(params, state, batch, key)

    tx = optimizer.build(learning_rate=0.01, steps=40)
    variables = states.variables_of(Encoder(), (1, 8, 8, 8, 3))
    state = states.init(jax.random.key(0), variables=variables, optimizer=tx, ema=True)
    batch = next(crops(store, 0))
    jax.block_until_ready(
        train_step(
            state,
            batch,
            jax.random.key(0),
            objective=record,
            optimizer=tx,
            accumulate=2,
            views=VIEWS,
            ema=0.9,
        )
    )
    jax.effects_barrier()
    first = batch["image"][:, 0, 0, 0, 0]
    expected = [first[[0, 1, 4, 5]], first[[2, 3, 6, 7]]]  # samples 0 and 2, then 1 and 3
    np.testing.assert_array_equal(sorted(map(list, seen)), sorted(map(list, expected)))


def test_a_ranking_that_changes_between_starts_is_refused(calm, store):
    with pytest.raises(ConfigError, match=r"ranked by \('val/distance', 'min'\), not by config.train.best"):
        fit(calm[0], store, best=("val/distance", "max"))


def test_a_ranking_by_a_number_that_no_evaluation_gives_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"config\.train\.best: no 'val/dice' among val/distance"):
        fit(tmp_path, store, best=("val/dice", "max"))


def test_a_metric_with_the_name_of_one_of_the_steps_is_refused(store, tmp_path):
    def clash(params, state, batch, key):
        loss, (model_state, _) = agreement(params, state, batch, key)
        return loss, (model_state, {"skipped": loss})

    tx = optimizer.build(learning_rate=0.01, steps=40)
    variables = states.variables_of(Encoder(), (1, 8, 8, 8, 3))
    state = states.init(jax.random.key(0), variables=variables, optimizer=tx, ema=True)
    with pytest.raises(ValueError, match="metric 'skipped' has the name of one of the step's own"):
        train_step(state, next(crops(store, 0)), jax.random.key(0), objective=clash, optimizer=tx)
