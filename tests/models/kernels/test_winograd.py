"""Winograd's algorithm against the plain sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.models.kernels import winograd

SAME, NONE, UNEQUAL = ((1, 1),) * 3, ((0, 0),) * 3, ((0, 2), (2, 1), (1, 0))


def plain(x, kernel, padding):
    """The sum over all taps, b x y z o."""
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:3], (1, 2, 3))  # b x y z i p q r
    return np.einsum("bxyzipqr,pqrio->bxyzo", windows, kernel)


def plain_gradient(x, dy, padding):
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, dy.shape[1:4], (1, 2, 3))  # b p q r i x y z
    return np.einsum("bpqrixyz,bxyzo->pqrio", windows, dy)


def arrays(size, inputs=2, outputs=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, *size, inputs)).astype(dtype), rng.normal(
        size=(3, 3, 3, inputs, outputs)
    ).astype(dtype)


def test_six_products_give_four_outputs_of_three_taps_exactly():
    """In whole numbers: 24 times the kernel's sums have no fractions."""
    kernel = np.rint(24 * winograd.KERNEL).astype(int)
    np.testing.assert_allclose(kernel / 24, winograd.KERNEL, rtol=1e-15)
    for tap in np.eye(3, dtype=int):
        for value in np.eye(6, dtype=int):
            found = winograd.OUTPUTS @ ((kernel @ tap) * (winograd.INPUTS @ value))
            np.testing.assert_array_equal(found, 24 * np.correlate(value, tap, "valid"))


@pytest.mark.parametrize(
    "size, padding", [((4, 3, 3), SAME), ((6, 5, 4), NONE), ((5, 4, 3), UNEQUAL), ((1, 1, 1), SAME)]
)
def test_a_convolution_is_the_plain_sum(size, padding):
    x, kernel = arrays(size)
    expected = plain(x.astype(float), kernel.astype(float), padding)
    found = winograd.convolve((jnp.asarray(x),), jnp.asarray(kernel), padding)[0]
    assert found.shape == expected.shape and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("size, padding", [((4, 3, 3), SAME), ((6, 7, 4), NONE), ((5, 4, 3), UNEQUAL)])
def test_the_kernels_gradient_is_the_plain_sum(size, padding):
    x, kernel = arrays(size)
    dy = np.random.default_rng(1).normal(size=plain(x, kernel, padding).shape).astype(np.float32)
    found = winograd.weight_gradient((jnp.asarray(x),), jnp.asarray(dy), padding)
    assert found.shape == kernel.shape
    np.testing.assert_allclose(found, plain_gradient(x.astype(float), dy.astype(float), padding), atol=5e-4)


def test_in_float64_both_are_exact_to_rounding():
    with jax.enable_x64(True):
        x, kernel = arrays((5, 6, 3), dtype=np.float64)
        found = winograd.convolve((jnp.asarray(x),), jnp.asarray(kernel), SAME)[0]
        np.testing.assert_allclose(found, plain(x, kernel, SAME), atol=1e-12)
        gradient = winograd.weight_gradient((jnp.asarray(x),), found, SAME)
        np.testing.assert_allclose(
            gradient, plain_gradient(x, np.asarray(found), SAME), rtol=1e-11, atol=1e-10
        )
