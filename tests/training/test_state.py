"""Everything that changes during training, in one tree."""

import jax
import numpy as np
import pytest

from tests.training import toy
from ukbob_jax.training import optimizer
from ukbob_jax.training import state as states

TX = optimizer.build(learning_rate=0.1, steps=10)
PARAMS = {"head": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}


def test_a_fresh_state_has_seen_nothing():
    state = states.start(PARAMS, {"batch_stats": {"mean": np.ones(2)}}, TX)
    assert (int(state.step), int(state.skipped), int(state.skipped_in_row)) == (0, 0, 0)
    assert state.step.dtype == state.skipped.dtype == np.int32
    assert state.params is PARAMS and state.ema == {} and set(state.model_state) == {"batch_stats"}
    assert state.inference_params is state.params


def test_an_average_starts_as_a_copy_and_is_what_is_handed_on():
    state = states.start(PARAMS, {}, TX, ema=True)
    jax.tree.map(np.testing.assert_array_equal, state.ema, PARAMS)
    assert state.ema["head"]["bias"] is not PARAMS["head"]["bias"]  # a step gives the memory of either away
    moved = state.replace(params=jax.tree.map(lambda p: p + 1, state.params))
    jax.tree.map(np.testing.assert_array_equal, moved.inference_params, PARAMS)


def test_variables_are_split_into_parameters_and_the_rest():
    given = {"params": PARAMS, "batch_stats": {"mean": np.ones(2, np.float32)}}
    keys = []
    state = states.init(7, variables=lambda key: keys.append(key) or given, optimizer=TX)
    assert keys == [7] and state.params is PARAMS
    assert state.model_state == {"batch_stats": given["batch_stats"]} and set(given) == {
        "params",
        "batch_stats",
    }


@pytest.mark.parametrize("ema", [False, True])
def test_shapes_are_known_without_computing_anything(ema):
    variables = states.variables_of(toy.Net(batch_norm=True), (1, *toy.SHAPE, 2))
    state = jax.eval_shape(
        lambda key: states.init(key, variables=variables, optimizer=TX, ema=ema), jax.random.key(0)
    )
    assert state.params["inner"]["kernel"].shape == (2, 8) and state.params["head"]["bias"].shape == (
        toy.CLASSES,
    )
    assert state.model_state["batch_stats"]["batch_norm"]["mean"].shape == (8,)
    assert jax.tree.structure(state.ema) == jax.tree.structure(state.params if ema else {})
