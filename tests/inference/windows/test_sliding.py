"""The sliding window against MONAI's outputs, and by what must hold for any network."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inference.windows.monai_cases import NOT_OFFERED, reference_cases
from tests.inference.windows.predictors import conv, pointwise, ramp, random_volume
from ukbob_jax.inference.windows.sliding import sliding_window, sliding_window_params
from ukbob_jax.inference.windows.window import Window


@pytest.mark.reference
def test_every_reference_case_is_tested(monai):
    assert {name for name in monai[0] if not name.startswith("_")} == set(reference_cases()) | NOT_OFFERED


@pytest.mark.reference
@pytest.mark.parametrize("name", reference_cases())
def test_equals_monai(monai, name):
    cases, outputs, script = monai
    case = cases[name]
    predict = {"ramp": ramp, "conv": conv}[case["predictor"]]
    volumes = script.volume(case["shape"], case["seed"]).transpose(0, 2, 3, 4, 1)
    for volume, expected in zip(volumes, outputs[name].transpose(0, 2, 3, 4, 1)):
        ours = sliding_window(predict, volume, case["roi"], case["overlap"], case["mode"])
        np.testing.assert_allclose(ours, expected, atol=2e-5)  # MONAI's own distance from float64 is 6e-6


@pytest.mark.parametrize("shape", [(9, 7, 8), (5, 11, 6)])
@pytest.mark.parametrize("overlap", [0.0, (0.5, 0.25, 0.75)])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_voxelwise_prediction_is_not_changed(shape, overlap, blend):
    volume, variables = random_volume((*shape, 2)), {"a": jnp.float32(1.5)}
    expected = pointwise(variables, volume)
    ours = sliding_window_params(pointwise, variables, volume, Window((6, 6, 6), overlap, blend))
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize("batch", [2, 5, 7, 50])
def test_batch_does_not_change_the_result_and_is_always_full(batch):
    seen = []

    def predict(x):
        seen.append(x.shape)
        return conv(x)

    volume = random_volume((11, 9, 10, 1))
    ours = sliding_window(predict, volume, (6, 5, 4), 0.5, batch=batch)
    assert set(seen) == {(batch, 6, 5, 4, 1)}  # of 3 x 3 x 4 windows
    np.testing.assert_allclose(ours, sliding_window(conv, volume, (6, 5, 4), 0.5, batch=1), atol=1e-6)


def test_new_parameters_and_new_volumes_compile_nothing():
    chex.clear_trace_counter()
    apply = chex.assert_max_traces(pointwise, n=2)  # the output's shape, then the loop

    for run, value in ((sliding_window_params, 1.0), (sliding_window_params, 2.0)):
        run(apply, {"a": jnp.float32(value)}, random_volume((8, 8, 9, 1), seed=int(value)), Window((5, 5, 5)))


@pytest.mark.parametrize("shape, batch", [((11, 9, 10), 5), ((4, 9, 3), 50)])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_a_prediction_that_needs_values_is_called_on_the_host(shape, batch, blend):
    seen = []

    def predict(x):
        seen.append(x.shape)
        return np.array(conv(np.asarray(x)))  # numpy: cannot be traced

    volume, roi = random_volume((*shape, 1)), (6, 5, 4)
    ours = sliding_window(predict, volume, roi, (0.5, 0.25, 0.6), blend, batch)
    assert set(seen) == {(batch, *roi, 1)}
    expected = sliding_window(conv, volume, roi, (0.5, 0.25, 0.6), blend, batch)
    np.testing.assert_allclose(ours, expected, atol=1e-6)  # float32 sums in another order


def test_a_prediction_that_selects_by_value_is_called_on_the_host():
    volume = random_volume((8, 9, 7, 1))
    found = sliding_window(lambda x: x - x[x > 0].min() * 0, volume, (5, 5, 5))
    np.testing.assert_allclose(found, volume, atol=1e-6)  # float32 weights


def test_works_inside_jit():
    volume = random_volume((8, 9, 7, 1))
    jitted = jax.jit(lambda v: sliding_window(conv, v, (5, 5, 5)))
    np.testing.assert_allclose(jitted(volume), sliding_window(conv, volume, (5, 5, 5)), atol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"overlap": 1.0}, "overlap 1.0 is outside"),
        ({"blend": "hann"}, "'hann' is not known"),
        ({"roi": (4, 4)}, "need 3 entries"),
        ({"batch": 0}, "batch 0 must be at least 1"),
        ({"volume": np.zeros((8, 8, 8))}, r"is not x y z c"),
        ({"predict": lambda x: x[:, ::2]}, r"predict gave shape \(4, 2, 4, 4, 1\)"),
    ],
)
def test_wrong_settings_are_named(change, message):
    arguments = {
        "predict": lambda x: x,
        "volume": np.zeros((8, 8, 8, 1), np.float32),
        "roi": (4, 4, 4),
    } | change
    with pytest.raises(ValueError, match=message):
        sliding_window(**arguments)
