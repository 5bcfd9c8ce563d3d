import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax

from ukbob_jax.models.kernels import conv, dense

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
        ((9, 7, 6), (3, 3, 3), (1, 1, 1), "SAME", 30, 24),
        ((1, 2, 1), (3, 3, 3), (1, 1, 1), "SAME", 24, 25),
        ((2, 2, 2), (3, 3, 3), (1, 1, 1), "SAME", 3, 5),
        ((1, 1, 1), (3, 3, 3), (1, 1, 1), "SAME", 3, 5),
        ((6, 5, 4), (1, 1, 1), (1, 1, 1), "SAME", 6, 9),
        ((6, 4, 8), (2, 2, 2), (2, 2, 2), "VALID", 2, 12),
        ((6, 4, 8), (2, 2, 2), (2, 2, 2), "SAME", 2, 12),
        ((7, 5, 9), (2, 2, 2), (2, 2, 2), "VALID", 2, 12),
        ((7, 5, 9), (2, 2, 2), (2, 2, 2), "SAME", 2, 12),
        ((7, 6, 5), (3, 3, 3), (2, 2, 2), "SAME", 3, 4),
        ((8, 6, 4), (3, 3, 3), (2, 2, 2), ((1, 1),) * 3, 3, 4),
        ((7, 8, 9), (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1)), 3, 4),
        ((7, 8, 9), (3, 3, 1), (2, 2, 1), ((1, 1), (1, 1), (0, 0)), 3, 4),
        ((9, 8, 7), (7, 5, 4), (3, 2, 1), ((3, 3), (2, 1), (0, 2)), 2, 3),
        ((6, 5, 7), (1, 1, 1), (2, 3, 1), "VALID", 2, 3),  # a stride beyond the kernel
        ((9, 5, 7), (1, 2, 1), (3, 3, 2), ((0, 1), (1, 0), (1, 1)), 2, 3),
        ((4, 6, 7), (1, 3, 3), (1, 1, 1), "SAME", 24, 25),  # planes in Winograd's form
        ((4, 6, 7), (1, 3, 1), (1, 1, 1), "SAME", 24, 25),
        ((6, 7, 4), (3, 3, 1), (1, 1, 1), "SAME", 24, 25),
        ((6, 4, 7), (3, 1, 3), (1, 1, 1), "SAME", 24, 25),
        ((6, 4, 7), (3, 5, 1), (1, 1, 1), ((0, 2), (1, 2), (0, 0)), 24, 25),
        ((7, 6, 5), (2, 3, 4), (1, 1, 1), "SAME", 3, 4),
        ((7, 6, 5), (3, 1, 2), (1, 1, 1), "VALID", 3, 4),
    ],
)
def test_values_and_both_gradients_equal_lax(size, window, strides, padding, inputs, outputs, monkeypatch):
    monkeypatch.setattr(dense, "SMALL", 0)  # these small maps take the forms of larger ones
    assert_same_as_lax(*arrays(size, window, inputs, outputs), strides, padding)


@hypothesis.settings(max_examples=5, deadline=None, derandomize=True)
@hypothesis.given(
    size=st.tuples(*[st.integers(1, 6)] * 3),
    window=st.tuples(*[st.integers(1, 3)] * 3),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 40),
)
def test_any_shape_equals_lax(size, window, inputs, outputs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "SMALL", 0)
        assert_same_as_lax(*arrays(size, window, inputs, outputs, batch=1), (1, 1, 1), "SAME")


@hypothesis.settings(max_examples=5, deadline=None, derandomize=True)
@hypothesis.given(
    size=st.tuples(*[st.integers(1, 9)] * 3),
    window=st.tuples(*[st.sampled_from((1, 2, 3, 5, 7))] * 3),
    strides=st.tuples(*[st.integers(1, 3)] * 3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_any_stride_equals_lax(size, window, strides, channels):
    padding = tuple((k // 2, k // 2) for k in window)
    assert_same_as_lax(*arrays(size, window, *channels), strides, padding)


@pytest.mark.parametrize("inputs, outputs", [(3, 5), (24, 25)])
def test_float64_agrees_to_rounding(inputs, outputs, monkeypatch):
    monkeypatch.setattr(dense, "SMALL", 0)
    with jax.enable_x64(True):
        x, kernel = arrays((5, 4, 6), (3, 3, 3), inputs, outputs, np.float64)
        assert_same_as_lax(x, kernel, (1, 1, 1), "SAME", tolerance=1e-13)


@pytest.mark.parametrize("size, padding", [((4, 4, 4), "SAME"), ((2, 2, 2), "SAME"), ((3, 3, 4), "VALID")])
def test_small_maps_equal_lax(size, padding):
    assert_same_as_lax(*arrays(size, (3, 3, 3), 7, 9), (1, 1, 1), padding)


@pytest.mark.parametrize("inputs, outputs", [(4, 12), (24, 30), (48, 40)])
def test_large_enough_maps_for_each_form_equal_lax(inputs, outputs):
    assert_same_as_lax(*arrays((9, 13, 11), (3, 3, 3), inputs, outputs, batch=1), (1, 1, 1), "SAME")


@pytest.mark.parametrize("small", [0, 10**6])
def test_bfloat16_keeps_type_and_stays_within_its_rounding(small, monkeypatch):
    monkeypatch.setattr(dense, "SMALL", small)
    x, kernel = arrays((5, 4, 6), (3, 3, 3), 12, 12, jnp.bfloat16)
    ours = values_and_gradients(conv.conv3d, x, kernel)
    exact = values_and_gradients(reference, x.astype(jnp.float32), kernel.astype(jnp.float32))
    for a, b in zip(ours, exact):
        assert a.dtype == jnp.bfloat16
        # one rounding of the result (2**-9) and, in the gradients, one of dy
        np.testing.assert_allclose(np.asarray(a, np.float32), b, atol=2**-7 * float(jnp.abs(b).max()))


def test_vmap_equals_a_loop():
    x, kernel = arrays((4, 5, 6), (3, 3, 3), 3, 4, batch=6)
    x = x.reshape(3, 2, *x.shape[1:])
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])
    gradient = jax.grad(lambda x, k: jnp.sum(conv.conv3d(x, k) ** 2), argnums=(0, 1))
    together = jax.jit(jax.vmap(gradient))(x, kernels)
    for i in range(3):
        for a, b in zip(together, gradient(x[i], kernels[i])):
            np.testing.assert_allclose(a[i], b, atol=1e-4)


@pytest.mark.parametrize("small", [0, 10**6])
def test_a_batch_split_over_devices_gives_the_same(small, monkeypatch):
    monkeypatch.setattr(dense, "SMALL", small)
    x, kernel = arrays((4, 5, 6), (3, 3, 3), 3, 4, batch=8)
    function = functools.partial(values_and_gradients, conv.conv3d)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*a)) for a in (("data",), ()))
    placed = jax.device_put(x, split), jax.device_put(kernel, whole)
    for a, b in zip(jax.jit(function)(*placed), function(x, kernel)):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_platform_lowered_for_decides_the_form():
    x, kernel = arrays((8, 9, 16), (3, 3, 3), 4, 12, batch=1)
    step = jax.jit(jax.grad(lambda x, k: jnp.sum(conv.conv3d(x, k) ** 2), argnums=(0, 1)))
    traced = step.trace(x, kernel)

    def volumes_convolved(platform):  # lines of the program with a convolution over three axes
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return sum("convolution" in line and "[b, 0, 1, 2, f]" in line for line in text.splitlines())

    assert volumes_convolved("cpu") == 0
    assert volumes_convolved("tpu") >= 2
    assert volumes_convolved("cuda") >= 2


def test_memory_stays_near_the_size_of_the_tensors():
    x = jnp.zeros((1, 32, 32, 32, 24))
    kernel = jnp.zeros((3, 3, 3, 24, 24))
    for function in (conv.conv3d, lambda x, k: jax.vjp(conv.conv3d, x, k)[1](x)):
        used = jax.jit(function).lower(x, kernel).compile().memory_analysis().temp_size_in_bytes
        assert used < 8 * x.nbytes  # 27 of them would be a copy of every neighbourhood


@pytest.mark.parametrize("window", [(2, 2, 2), (1, 2, 2), (1, 3, 2), (2, 2), (1, 3)])
def test_transposed_convolution_equals_its_definition_and_torch(window):
    rank = len(window)
    rng, size = np.random.default_rng(0), (2, 3, 4)[:rank]
    x = jnp.asarray(rng.normal(size=(2, *size, 5)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*window, 5, 3)), jnp.float32)
    y, dx, dkernel = values_and_gradients(jax.jit(conv.conv_transpose), x, kernel)
    blocks = {2: "bxyi,pqio->bxpyqo", 3: "bxyzi,pqrio->bxpyqzro"}[rank]
    expected = np.einsum(blocks, x, kernel).reshape(2, *(n * k for n, k in zip(size, window)), 3)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    weight = torch.from_numpy(np.moveaxis(np.asarray(kernel), (-2, -1), (0, 1)).copy()).requires_grad_()
    volume = torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy()).requires_grad_()
    out = function(volume, weight, stride=window)
    np.testing.assert_allclose(y, np.moveaxis(out.detach().numpy(), 1, -1), atol=1e-5)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    out.backward(torch.from_numpy(np.moveaxis(dy, -1, 1).copy()))
    np.testing.assert_allclose(dx, np.moveaxis(volume.grad.numpy(), 1, -1), atol=1e-5)
    np.testing.assert_allclose(dkernel, np.moveaxis(weight.grad.numpy(), (0, 1), (-2, -1)), atol=1e-4)


def test_what_does_not_fit_is_named():
    x, kernel = arrays((4, 4, 4), (3, 3, 3), 3, 4)
    with pytest.raises(ValueError, match="kernel kx ky kz i o, got"):
        conv.conv3d(x[..., :2], kernel)
    with pytest.raises(ValueError, match="x is bfloat16 and kernel is float32"):
        conv.conv3d(x.astype(jnp.bfloat16), kernel)
    with pytest.raises(ValueError, match="'reflect'"):
        conv.conv3d(x, kernel, padding="reflect")
    with pytest.raises(ValueError, match="both without z, got"):
        conv.conv_transpose(x, kernel[0])
    with pytest.raises(ValueError, match="x is bfloat16 and kernel is float32"):
        conv.conv_transpose(x.astype(jnp.bfloat16), kernel)


@pytest.mark.parametrize("channels", [(2, 3), (24, 24)])
def test_several_arrays_are_one_with_their_channels_side_by_side(channels, monkeypatch):
    """Plain and in Winograd's form, values and all gradients."""
    monkeypatch.setattr(dense, "SMALL", 0)
    rng = np.random.default_rng(0)
    parts = tuple(jnp.asarray(rng.normal(size=(1, 6, 5, 4, c)), jnp.float32) for c in channels)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, sum(channels), 24)), jnp.float32)
    dy = jnp.asarray(rng.normal(size=(1, 6, 5, 4, 24)), jnp.float32)

    def all_of(function):
        y, pullback = jax.vjp(function, parts, kernel)
        dparts, dkernel = pullback(dy)
        return y, *dparts, dkernel

    found = all_of(conv.conv3d)
    expected = all_of(
        lambda parts, kernel: conv._plain(
            jnp.concatenate(parts, -1), kernel, strides=(1, 1, 1), padding=((1, 1),) * 3
        )
    )
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * float(jnp.abs(theirs).max()))
