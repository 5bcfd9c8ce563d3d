"""Normalisation against its definition, with all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.models.kernels.norm import EPSILON, normalize, shift_and_activate

SHAPE = (2, 3, 4, 5, 6)
SPACE, CHANNEL, BATCH = (1, 2, 3), (4,), (0, 1, 2, 3)


def plain(axes, slope, x, scale=None, bias=None, residual=None):
    y = (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + EPSILON)
    if scale is not None:
        y = y * scale.reshape(1, 1, 1, 1, -1) + bias.reshape(1, 1, 1, 1, -1)
    y = y if residual is None else y + residual
    return jnp.where(y >= 0, y, slope * y)


@pytest.mark.parametrize("axes", [SPACE, CHANNEL, BATCH])
@pytest.mark.parametrize(
    "affine, residual, slope", [(False, False, 1.0), (True, True, 0.01), (True, False, 0.2)]
)
def test_values_and_gradients_are_those_of_the_definition(axes, affine, residual, slope):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        inputs = [jnp.asarray(rng.normal(2.0, 3.0, SHAPE))]
        inputs += [jnp.asarray(rng.normal(size=6)) for _ in range(2)] if affine else []
        inputs += [jnp.asarray(rng.normal(size=SHAPE))] if residual else []
        dy = jnp.asarray(rng.normal(size=SHAPE))
        expected, pullback = jax.vjp(lambda *a: plain(axes, slope, *a), *inputs)
        found, ours = jax.vjp(lambda x, *a: normalize(x, axes, *a, slope=slope), *inputs)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        for mine, theirs in zip(ours(dy), pullback(dy)):
            np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_the_slope_at_zero_is_that_of_the_negative_side():
    """As PyTorch's leaky ReLU; `jax.nn.leaky_relu` takes the other side."""
    x = jnp.asarray([-1.0, 0.0, 1.0])
    gradient = jax.grad(lambda x: shift_and_activate(x, None, None, slope=0.01).sum())(x)
    np.testing.assert_allclose(gradient, [0.01, 0.01, 1.0])
    zeros = jnp.zeros((1, 1, 1, 1, 2))
    shifted = jax.grad(lambda bias: normalize(zeros, SPACE, jnp.ones(2), bias, slope=0.01).sum())(
        jnp.zeros(2)
    )
    np.testing.assert_allclose(shifted, 0.01)


def test_a_large_mean_leaves_the_deviation_exact():
    """Mean 1e4, deviation 1: float32 keeps 1e-3 of a value, and so of the deviation of 1e5 values far more."""
    x = np.random.default_rng(0).normal(1e4, 1.0, (1, 48, 48, 48, 2)).astype(np.float32)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(SPACE, keepdims=True)) / np.sqrt(exact.var(SPACE, keepdims=True) + EPSILON)
    found = np.asarray(normalize(jnp.asarray(x), SPACE))
    np.testing.assert_allclose(found.std(SPACE), exact.std(SPACE), rtol=1e-4)
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_bfloat16_is_computed_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.bfloat16)
    found = normalize(x, SPACE)
    wide = normalize(x.astype(jnp.float32), SPACE)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, wide.astype(jnp.bfloat16))
