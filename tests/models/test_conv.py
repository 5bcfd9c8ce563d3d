import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax

from ukbob_jax.models import conv

DIMENSIONS = ("NDHWC", "DHWIO", "NDHWC")


def reference(x, kernel, strides=(1, 1, 1), padding="SAME"):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def arrays(size, window, inputs, outputs, dtype=np.float32, batch=2):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, *size, inputs)), dtype)
    kernel = jnp.asarray(
        rng.normal(size=(*window, inputs, outputs)) / np.sqrt(np.prod(window) * inputs), dtype
    )
    return x, kernel


def values_and_gradients(function, x, kernel):
    y, pullback = jax.vjp(function, x, kernel)
    dy = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype)
    return y, *pullback(dy)


def assert_same_as_lax(x, kernel, strides, padding, tolerance=2e-5):
    options = dict(strides=tuple(strides), padding=padding)
    ours = values_and_gradients(jax.jit(functools.partial(conv.conv3d, **options)), x, kernel)
    theirs = values_and_gradients(jax.jit(functools.partial(reference, **options)), x, kernel)
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype
        scale = float(np.abs(np.asarray(b, np.float64)).max(initial=1.0))
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), atol=tolerance * scale
        )


@pytest.mark.parametrize(
    "size, window, strides, padding, inputs, outputs",
    [
        ((8, 8, 8), (3, 3, 3), (1, 1, 1), "SAME", 12, 12),
        ((5, 6, 7), (3, 3, 3), (1, 1, 1), "SAME", 1, 12),
        ((5, 6, 7), (3, 3, 3), (1, 1, 1), "VALID", 24, 20),
        ((3, 3, 3), (3, 3, 3), (1, 1, 1), "VALID", 4, 50),
        ((4, 4, 4), (3, 3, 3), (1, 1, 1), "SAME", 7, 50),
        ((2, 2, 2), (3, 3, 3), (1, 1, 1), "SAME", 3, 5),
        ((1, 1, 1), (3, 3, 3), (1, 1, 1), "SAME", 3, 5),
        ((6, 5, 4), (1, 1, 1), (1, 1, 1), "SAME", 6, 9),
        ((6, 4, 8), (2, 2, 2), (2, 2, 2), "VALID", 2, 12),
        ((6, 4, 8), (2, 2, 2), (2, 2, 2), "SAME", 2, 12),
        ((7, 5, 9), (2, 2, 2), (2, 2, 2), "VALID", 2, 12),
        ((7, 5, 9), (2, 2, 2), (2, 2, 2), "SAME", 2, 12),
        ((7, 6, 5), (3, 3, 3), (2, 2, 2), "SAME", 3, 4),
        ((7, 6, 5), (2, 3, 4), (1, 1, 1), "SAME", 3, 4),
        ((7, 6, 5), (3, 1, 2), (1, 1, 1), "VALID", 3, 4),
    ],
)
def test_values_and_both_gradients_equal_lax(size, window, strides, padding, inputs, outputs):
    assert_same_as_lax(*arrays(size, window, inputs, outputs), strides, padding)


@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
@hypothesis.given(
    size=st.tuples(*[st.integers(1, 6)] * 3),
    window=st.tuples(*[st.integers(1, 3)] * 3),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 40),
)
def test_any_shape_equals_lax(size, window, inputs, outputs):
    assert_same_as_lax(*arrays(size, window, inputs, outputs, batch=1), (1, 1, 1), "SAME")


def test_float64_agrees_to_rounding():
    with jax.enable_x64(True):
        x, kernel = arrays((5, 4, 6), (3, 3, 3), 3, 5, np.float64)
        assert_same_as_lax(x, kernel, (1, 1, 1), "SAME", tolerance=1e-13)
