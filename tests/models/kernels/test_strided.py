"""Convolutions with strides in steps of few planes and rows, against XLA's own; whole layers are in `test_conv.py`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ukbob_jax.models.kernels import strided

SIZE, WINDOW = (9, 7, 8), (3, 3, 3)


def plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def arrays(strides, padding):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, *SIZE, 2)), rng.normal(size=(*WINDOW, 2, 3))
    y, pullback = jax.vjp(functools.partial(plain, strides=strides, padding=padding), x, kernel)
    dy = jnp.asarray(rng.normal(size=y.shape))
    return jnp.asarray(x), jnp.asarray(kernel), dy, (y, *pullback(dy))


@pytest.mark.parametrize("rows, cached, wide", [(1, 1, 99), (40, 3000, 99), (1, 1, 1), (40, 1, 1)])
@pytest.mark.parametrize(
    "strides, padding",
    [
        ((2, 2, 2), ((1, 1),) * 3),
        ((1, 2, 2), ((0, 0), (1, 1), (2, 0))),
        ((3, 1, 4), ((2, 1), (0, 1), (0, 0))),
    ],
)
def test_steps_of_any_length_give_the_same(rows, cached, wide, strides, padding, monkeypatch):
    """Single planes and rows, some at a time with overlap at the end; in the form for many channels too."""
    monkeypatch.setattr(strided, "WIDE", wide)
    monkeypatch.setattr(strided, "PLANE", rows)
    monkeypatch.setattr(strided, "ROWS", rows)
    monkeypatch.setattr(strided, "CACHED", cached)
    with jax.enable_x64(True):
        x, kernel, dy, expected = arrays(strides, padding)
        found = (
            strided.convolve(x, kernel, strides, padding),
            strided.data_gradient(dy, kernel, strides, padding, SIZE),
            strided.weight_gradient(x, dy, WINDOW, strides, padding),
        )
        for ours, theirs in zip(found, expected):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("channels", [24, strided.WIDE])
def test_memory_stays_near_the_size_of_the_tensors(channels):
    x, kernel = jnp.zeros((1, 32, 32, 32, channels)), jnp.zeros((3, 3, 3, channels, 48))
    strides, padding = (2, 2, 2), ((1, 1),) * 3
    dy = jnp.zeros((1, 16, 16, 16, 48))
    for function, inputs in (
        (lambda x, k: strided.convolve(x, k, strides, padding), (x, kernel)),
        (lambda dy, k: strided.data_gradient(dy, k, strides, padding, (32, 32, 32)), (dy, kernel)),
        (lambda x, dy: strided.weight_gradient(x, dy, (3, 3, 3), strides, padding), (x, dy)),
    ):
        used = jax.jit(function).lower(*inputs).compile().memory_analysis().temp_size_in_bytes
        assert used < 6 * x.nbytes  # an image with zeros between its voxels alone would be 8
