"""Transposed convolutions in steps of few planes; whole layers are in `test_conv.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.models.kernels import transposed


def plain(x, kernel):
    y = jnp.einsum("bxyzi,pqrio->bxpyqzro", x, kernel)
    return y.reshape(len(x), *(n * k for n, k in zip(x.shape[1:4], kernel.shape)), kernel.shape[-1])


@pytest.mark.parametrize("rows", [1, 30, 10**6])
@pytest.mark.parametrize("window", [(2, 2, 2), (1, 2, 3)])
def test_steps_of_any_length_give_the_same(rows, window, monkeypatch):
    """One plane at a time, two of three with overlap at the end, and all at once."""
    monkeypatch.setattr(transposed, "ROWS", rows)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel = (
            jnp.asarray(rng.normal(size=(2, 3, 2, 5, 4))),
            jnp.asarray(rng.normal(size=(*window, 4, 3))),
        )
        expected, pullback = jax.vjp(plain, x, kernel)
        dy = jnp.asarray(rng.normal(size=expected.shape))
        found = transposed.enlarge(x, kernel), *transposed.gradients(x, kernel, dy)
        for ours, theirs in zip(found, (expected, *pullback(dy))):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_nothing_as_large_as_the_result_is_held_beside_it():
    x, kernel = jnp.zeros((1, 32, 32, 32, 16)), jnp.zeros((2, 2, 2, 16, 16))
    compiled = jax.jit(transposed.enlarge).lower(x, kernel).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * 8 * x.nbytes
