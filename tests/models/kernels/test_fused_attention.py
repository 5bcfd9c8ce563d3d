"""The kernels for GPUs, interpreted on a CPU, against the plain form; and the form in tiles of windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.kernels.test_attention import arrays
from ukbob_jax.models.kernels import attention, fused_attention

# Windows of two blocks, padded and whole; the first has heads of a width that is no power of two.
SHAPES = [(2, 3, 27, 2, 24), (1, 5, 32, 1, 16)]


QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running


def fused_with_gradients(q, k, v, bias, regions, dout):
    options = {"regions": regions, "masked": attention.MASKED, "interpret": True}

    def both(q, k, v, bias, dout):
        out, logsumexp = fused_attention.forward(q, k, v, bias, **options)
        return out, logsumexp, fused_attention.backward(q, k, v, bias, out, logsumexp, dout, **options)

    return jax.jit(both, compiler_options=QUICK)(q, k, v, bias, dout)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(fused_attention, "BLOCK", 16)
    monkeypatch.setattr(fused_attention, "SPLITS", 2)


def plain_with_gradients(q, k, v, bias, regions, dout):
    (out, logsumexp), pullback = jax.vjp(lambda *a: attention._plain(*a, regions), q, k, v, bias)
    return out, logsumexp, pullback((dout, jnp.zeros_like(logsumexp)))


@pytest.mark.parametrize(
    "shape, masked", [pytest.param(SHAPES[0], True, marks=pytest.mark.slow), (SHAPES[1], False)]
)
def test_kernels_equal_the_plain_form_with_all_gradients(shape, masked):
    *inputs, regions = arrays(*shape, masked=masked)
    dout = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    out, logsumexp, gradients = plain_with_gradients(*inputs, regions, dout)
    ours, ours_logsumexp, found = fused_with_gradients(*inputs, regions, dout)
    np.testing.assert_allclose(ours, out, atol=2e-6)
    np.testing.assert_allclose(ours_logsumexp, logsumexp, atol=2e-6)
    for ours, expected in zip(found, gradients):  # q, k, v, bias
        np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.slow
def test_kernels_in_bfloat16_are_near_the_exact_values():
    *inputs, regions = arrays(1, 3, 20, 2, 16, dtype=jnp.bfloat16)
    inputs[3] = inputs[3].astype(jnp.float32)
    dout = jnp.asarray(np.random.default_rng(1).normal(size=inputs[0].shape), jnp.bfloat16)
    wide = [x.astype(jnp.float32) for x in (*inputs, dout)]
    exact_out, _, exact_gradients = plain_with_gradients(*wide[:4], regions, wide[4])
    out, _, gradients = fused_with_gradients(*inputs, regions, dout)
    assert [x.dtype for x in (out, *gradients)] == [jnp.bfloat16] * 4 + [jnp.float32]
    for ours, exact in zip((out, *gradients), (exact_out, *exact_gradients)):
        error = np.abs(np.asarray(ours, np.float32) - exact).max()
        assert error < 0.01 * np.abs(exact).max()  # two roundings of 2 ** -9


@pytest.mark.parametrize("windows, masked", [(1, True), (3, False), (9, True)])
def test_tiles_of_windows_equal_the_plain_form_with_all_gradients(windows, masked, monkeypatch):
    shape = (2, 9, 10, 3, 5)
    monkeypatch.setattr(attention, "SCORES_PER_TILE", windows * 2 * 3 * 10 * 10)
    *inputs, regions = arrays(*shape, masked=masked)
    dout = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    out, logsumexp, gradients = plain_with_gradients(*inputs, regions, dout)
    ours, ours_logsumexp = jax.jit(lambda *a: attention._forward_tiled(*a, regions))(*inputs)
    np.testing.assert_allclose(ours, out, atol=2e-6)
    np.testing.assert_allclose(ours_logsumexp, logsumexp, atol=2e-6)
    found = jax.jit(lambda *a: attention._backward_tiled(*a, regions=regions))(*inputs, out, logsumexp, dout)
    for ours, expected in zip(found, gradients):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("kind, calls", [("plain", 0), ("fused", 4)])
def test_lowers_for_an_nvidia_gpu(kind, calls):
    *inputs, regions = arrays(1, 8, 343, 2, 16, dtype=jnp.bfloat16)
    inputs[3] = inputs[3].astype(jnp.float32)

    def gradients(*inputs):
        return jax.grad(lambda *a: attention.attend(*a, regions, kind=kind).sum(), (0, 1, 2, 3))(*inputs)

    text = jax.jit(gradients).trace(*inputs).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("call @__gpu$xla.gpu.triton") == calls
