"""Learning from labels: what the objective gives the step."""

import jax
import numpy as np

from tests.training import toy
from ukbob_jax.training import losses, optimizer
from ukbob_jax.training import state as states
from ukbob_jax.training.objectives.supervised import supervised


def start(model):
    tx = optimizer.build(learning_rate=0.1, steps=4)
    return states.init(
        jax.random.key(0), variables=states.variables_of(model, (1, *toy.SHAPE, 2)), optimizer=tx
    )


def test_it_is_the_loss_of_the_networks_logits_and_reports_nothing_else():
    model, batch = toy.Net(), toy.batch(0)
    state = start(model)
    loss, (model_state, metrics) = supervised(model, losses.dice_ce)(
        state.params, state, batch, jax.random.key(1)
    )
    logits = model.apply({"params": state.params}, batch["image"])
    np.testing.assert_allclose(loss, losses.dice_ce(logits, batch["label"]), rtol=1e-6)
    assert model_state == {} and metrics == {}


def test_it_returns_the_running_statistics_of_its_pass():
    model, batch = toy.Net(batch_norm=True), toy.batch(0)
    state = start(model)
    _, (model_state, _) = supervised(model, losses.dice_ce)(state.params, state, batch, jax.random.key(1))
    before = state.model_state["batch_stats"]["batch_norm"]["mean"]
    assert np.any(model_state["batch_stats"]["batch_norm"]["mean"] != before)


def test_groups_of_people_reach_the_loss():
    model, batch = toy.Net(), toy.batch(0)
    state = start(model)
    groups = np.arange(len(batch["image"]), dtype=np.int32) % 2
    objective = supervised(model, losses.dice_ce)
    loss, _ = objective(state.params, state, {**batch, "groups": groups}, jax.random.key(1))
    logits = model.apply({"params": state.params}, batch["image"])
    np.testing.assert_allclose(loss, losses.dice_ce(logits, batch["label"], groups=groups), rtol=1e-6)
    assert loss != objective(state.params, state, batch, jax.random.key(1))[0]
