import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ukbob_jax.models.kernels import attention


def by_hand(q, k, v, bias, regions):
    """The definition, one window and head at a time, float64."""
    q, k, v, bias = (np.asarray(a, np.float64) for a in (q, k, v, bias))
    out = np.zeros(v.shape)
    for b, n, h in np.ndindex(v.shape[0], v.shape[1], v.shape[3]):
        scores = q[b, n, :, h] @ k[b, n, :, h].T + bias[h]
        if regions is not None:
            scores = scores - 100.0 * (regions[n][:, None] != regions[n][None, :])
        share = np.exp(scores - scores.max(1, keepdims=True))
        out[b, n, :, h] = (share / share.sum(1, keepdims=True)) @ v[b, n, :, h]
    return out


def arrays(b, n, t, h, d, masked=True, dtype=np.float32):
    rng = np.random.default_rng(0)
    qkv = [jnp.asarray(rng.normal(size=(b, n, t, h, d)), dtype) for _ in range(3)]
    bias = jnp.asarray(rng.normal(size=(h, t, t)), np.promote_types(dtype, np.float32))
    return *qkv, bias, rng.integers(0, 4, (n, t)) * 5 if masked else None


def with_gradients(function, *inputs):
    out, pullback = jax.vjp(function, *inputs)
    return out, *pullback(jnp.asarray(np.random.default_rng(1).normal(size=out.shape), out.dtype))


@pytest.fixture(autouse=True)
def in_steps(monkeypatch):
    """The small maps of these tests take the form of large ones."""
    monkeypatch.setattr(attention, "MAX_DENSE_SCORES", 0)


SHAPES = [(2, 3, 27, 2, 4), (1, 5, 8, 3, 5), (2, 1, 1, 1, 1), (1, 2, 343, 1, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("whole", [0, 10**9])
def test_equals_the_definition(shape, masked, whole, monkeypatch):
    monkeypatch.setattr(attention, "MAX_DENSE_SCORES", whole)
    *inputs, regions = arrays(*shape, masked=masked)
    out = jax.jit(lambda *a: attention.attend(*a, regions))(*inputs)
    np.testing.assert_allclose(out, by_hand(*inputs, regions), atol=2e-6)  # float32, sums of 343 shares


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("masked", [True, False])
def test_gradients_equal_automatic_ones_of_the_plain_form(shape, masked):
    *inputs, regions = arrays(*shape, masked=masked)
    ours = jax.jit(functools.partial(with_gradients, lambda *a: attention.attend(*a, regions)))(*inputs)
    keep = functools.partial(jnp.multiply, 1.0)  # a dropout that drops nothing selects the plain form
    plain = with_gradients(lambda *a: attention.attend(*a, regions, dropout=keep), *inputs)
    for a, b in zip(ours, plain):
        np.testing.assert_allclose(a, b, atol=1e-5)


@hypothesis.settings(max_examples=4, deadline=None, derandomize=True)
@hypothesis.given(n=st.integers(1, 7), t=st.integers(1, 9), step=st.integers(1, 300))
def test_any_number_of_windows_per_step_gives_the_same(n, t, step):
    *inputs, regions = arrays(2, n, t, 2, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "SCORES_PER_CHUNK", step)
        out = attention.attend(*inputs, regions)
    np.testing.assert_allclose(out, by_hand(*inputs, regions), atol=2e-6)


def test_large_scores_do_not_overflow():
    q, k, v, bias, regions = arrays(1, 2, 8, 1, 4)
    out = attention.attend(50 * q, 50 * k, v, bias, regions)
    np.testing.assert_allclose(out, by_hand(50 * q, 50 * k, v, bias, regions), atol=1e-3)


def test_float64_agrees_to_rounding():
    with jax.enable_x64(True):
        *inputs, regions = arrays(1, 3, 8, 2, 4, dtype=np.float64)
        out = attention.attend(*inputs, regions)
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(out, by_hand(*inputs, regions), atol=1e-13)


def test_bfloat16_keeps_type_and_stays_within_its_rounding():
    q, k, v, bias, regions = arrays(1, 3, 8, 2, 4, dtype=jnp.bfloat16)
    out, dq, _, _, dbias = with_gradients(lambda *a: attention.attend(*a, regions), q, k, v, bias)
    assert out.dtype == dq.dtype == jnp.bfloat16 and dbias.dtype == jnp.float32
    expected = by_hand(q, k, v, bias, regions)
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, atol=2**-8 * np.abs(expected).max())


def test_a_batch_split_over_devices_gives_the_same():
    *inputs, regions = arrays(8, 2, 8, 2, 4)
    function = functools.partial(with_gradients, lambda *a: attention.attend(*a, regions))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    placed = [jax.device_put(a, s) for a, s in zip(inputs, (split, split, split, whole))]
    for a, b in zip(jax.jit(function)(*placed), jax.jit(function)(*inputs)):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_cpu_program_never_holds_the_scores_of_all_windows():
    shape = (1, 16, 343, 3, 4)
    *inputs, regions = arrays(*shape)
    gradient = jax.grad(lambda *a: attention.attend(*a, regions).sum(), argnums=(0, 1, 2, 3))
    used = jax.jit(gradient).lower(*inputs).compile().memory_analysis().temp_size_in_bytes
    assert used < 16 * 3 * 343 * 343 * 4 / 2  # half of one copy of them
