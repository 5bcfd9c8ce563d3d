"""Arrays for loops to fill, and maps kept for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from ukbob_jax.models.kernels.buffers import keep, unwritten


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_what_is_kept_is_unchanged_and_has_the_gradient_of_identity(dtype):
    x = jnp.asarray([-1.5, 0.0, jnp.inf, jnp.nan, 3e-5], dtype)
    assert keep(x, "maps").dtype == dtype
    np.testing.assert_array_equal(np.asarray(keep(x, "maps"), np.float32), np.asarray(x, np.float32))
    gradient = jax.grad(lambda x: (2 * keep(x, "maps")).sum())(jnp.ones(3, dtype))
    np.testing.assert_array_equal(np.asarray(gradient, np.float32), 2)


def _gradient(mark):
    """The program of a gradient through two blocks that keep one map each."""
    policy = jax.checkpoint_policies.save_only_these_names("maps")
    block = jax.checkpoint(lambda x, w: jnp.tanh(mark(x @ w, "maps")), policy=policy)
    x, w = jnp.ones((4, 3)), jnp.full((3, 3), 0.1)
    return str(jax.make_jaxpr(jax.grad(lambda w: block(block(x, w), w).sum()))(w))


def test_kept_maps_are_neither_rounded_nor_computed_again():
    program = _gradient(keep)
    assert "reduce_precision" not in program
    assert program.count("dot_general") == _gradient(checkpoint_name).count("dot_general")


def test_loops_do_not_share_the_array_that_they_fill():
    """Two loops that fill maps of one shape: neither takes more than its own map."""

    def fill(x: jax.Array, w: jax.Array) -> jax.Array:
        def plane(n: jax.Array, y: jax.Array) -> jax.Array:
            return lax.dynamic_update_slice_in_dim(y, lax.dynamic_slice_in_dim(x, n, 1, 0) @ w, n, 0)

        return lax.fori_loop(0, x.shape[0], plane, unwritten(x.shape, w))

    def twice(x: jax.Array, w: jax.Array, v: jax.Array) -> jax.Array:
        return fill(fill(x, w), v)

    rng = np.random.default_rng(0)
    x, w, v = (rng.normal(size=shape).astype(np.float32) for shape in ((64, 256, 8), (8, 8), (8, 8)))
    program = jax.jit(twice).lower(x, w, v).compile()
    np.testing.assert_allclose(program(x, w, v), x @ w @ v, rtol=1e-4, atol=1e-5)
    assert program.memory_analysis().temp_size_in_bytes < 1.5 * x.nbytes
