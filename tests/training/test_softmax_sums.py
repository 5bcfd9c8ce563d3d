"""Sums of the softmax and their gradient by hand, against automatic differentiation of the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.training import softmax_sums as sums


def by_definition(z, labels, valid, factors, squared):
    p, t = jax.nn.softmax(z, axis=-1), jax.nn.one_hot(labels, z.shape[-1])
    v = valid[..., None].astype(jnp.float32)
    surprise = -jnp.sum(t * jax.nn.log_softmax(z, axis=-1), axis=-1)
    return (
        (p * t * v).sum(1),
        ((p**2 if squared else p) * v).sum(1),
        (t * v).sum(1),
        (surprise * factors).sum(),
    )


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("per_step", [2 * 5 * 4, 10**9])  # steps of 4 voxels, all at once
def test_both_forms_equal_the_definition_with_its_gradient(squared, per_step, monkeypatch):
    monkeypatch.setattr(sums, "VALUES_PER_STEP", per_step)
    rng = np.random.default_rng(0)
    z = jnp.asarray(3 * rng.normal(size=(2, 24, 5)), jnp.float32)
    labels, valid = jnp.asarray(rng.integers(0, 5, (2, 24))), jnp.asarray(rng.random((2, 24)) < 0.8)
    factors = jnp.asarray(rng.random((2, 24)), jnp.float32)
    weights = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 5), (2, 5), (2, 5), ())]

    def total(form, z):
        return sum((w * s).sum() for w, s in zip(weights, form(z, labels, valid, factors, squared)))

    expected, gradient = jax.value_and_grad(lambda z: total(by_definition, z))(z)
    found, ours = jax.value_and_grad(lambda z: total(sums.softmax_sums, z))(z)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(ours, gradient, atol=2e-6)
    *parts, log_sum = sums._sums(z, labels, valid, factors, squared)  # as on a GPU
    for part, truth in zip(parts, by_definition(z, labels, valid, factors, squared)):
        np.testing.assert_allclose(part if part.ndim > 1 else part.sum(), truth, rtol=1e-5)
    whole = sums._gradient(z, labels, valid, factors, log_sum, weights[0], weights[1], weights[3], squared)
    np.testing.assert_allclose(whole, gradient, atol=2e-6)


def test_the_gradient_has_the_type_of_the_logits():
    z = jnp.ones((1, 8, 3), jnp.bfloat16)
    labels, valid, factors = jnp.zeros((1, 8), int), jnp.ones((1, 8), bool), jnp.ones((1, 8))
    assert jax.grad(lambda z: sums.softmax_sums(z, labels, valid, factors, False)[3])(z).dtype == z.dtype


@pytest.mark.parametrize(
    "voxels, most, size", [(24, 10, 8), (96**3, 2739, 2304), (1009, 300, 1009), (7, 10, 7)]
)
def test_a_step_takes_a_divisor_of_the_voxels(voxels, most, size, monkeypatch):
    monkeypatch.setattr(sums, "VALUES_PER_STEP", 73 * most)
    assert sums._voxels_per_step((1, voxels, 73)) == size
