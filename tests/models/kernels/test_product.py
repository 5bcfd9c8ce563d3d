import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.models.kernels import product
from ukbob_jax.models.kernels.product import wide_product


@pytest.mark.parametrize("dtype, atol", [(jnp.float32, 1e-6), (jnp.bfloat16, 0.05)])
def test_gradients_are_those_of_a_product(dtype, atol):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((2, 3, 4), (4, 5)))
    dout = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
    out, pullback = jax.vjp(lambda x, kernel: wide_product(x, kernel, jnp.float32), x, kernel)
    dx, dkernel = pullback(dout)
    assert (out.dtype, dx.dtype, dkernel.dtype) == (jnp.float32, dtype, dtype)
    x, kernel = (np.asarray(a, np.float64) for a in (x, kernel))
    np.testing.assert_allclose(out, x @ kernel, atol=1e-5)
    np.testing.assert_allclose(np.asarray(dx, np.float64), dout @ kernel.T, atol=atol)
    np.testing.assert_allclose(np.asarray(dkernel, np.float64), np.einsum("bxi,bxo->io", x, dout), atol=atol)


def test_gradients_multiply_in_the_narrow_type():
    x, kernel = jnp.ones((8, 4), jnp.bfloat16), jnp.ones((4, 3), jnp.bfloat16)
    gradients = jax.grad(lambda *a: wide_product(*a, jnp.float32).sum(), (0, 1))
    products = [
        line for line in jax.jit(gradients).lower(x, kernel).as_text().splitlines() if "dot_general" in line
    ]
    assert products and not any("f32>," in line.rpartition(":")[2].partition("->")[0] for line in products)


@pytest.mark.parametrize("rows", [24, 29])  # whole blocks, and some rows left over
def test_a_gradient_in_blocks_of_rows_is_the_whole_sum(rows, monkeypatch):
    monkeypatch.setattr(product, "ROWS", 8)
    monkeypatch.setattr(product, "MANY", 16)
    rng = np.random.default_rng(0)
    x, kernel, dout = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((rows, 5), (5, 3), (rows, 3)))
    found = jax.vjp(lambda k: wide_product(x, k, jnp.float32), kernel)[1](dout)[0]
    np.testing.assert_allclose(found, x.T @ dout, atol=1e-5)
