"""Depthwise convolutions against PyTorch's, and the gradient of the CPU's form against XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.models.kernels import depthwise as module
from ukbob_jax.models.kernels.depthwise import depthwise, depthwise_transpose

SHAPES = [((5, 8, 7), 3), ((4, 6, 9), 5), ((9, 8), 7), ((4, 5), 1)]


def arrays(size, width, dtype=np.float32):
    rng = np.random.default_rng(width)
    x = rng.normal(size=(2, *size, 3)).astype(dtype)
    return x, rng.normal(size=(*(width,) * len(size), 3)).astype(dtype)


@pytest.mark.parametrize("size, width", SHAPES)
@pytest.mark.parametrize("kind", ["keep", "down", "up"])
def test_it_is_pytorchs(size, width, kind):
    torch = pytest.importorskip("torch")
    x, kernel = arrays(size, width)
    name = f"conv{'_transpose' * (kind == 'up')}{len(size)}d"
    options = {"stride": 1 if kind == "keep" else 2, "padding": width // 2, "groups": 3}
    weight = torch.tensor(np.moveaxis(kernel, -1, 0)[:, None].copy())
    theirs = getattr(torch.nn.functional, name)(torch.tensor(np.moveaxis(x, -1, 1).copy()), weight, **options)
    run = depthwise_transpose if kind == "up" else functools.partial(depthwise, stride=options["stride"])
    ours = jax.jit(run)(x, kernel)
    np.testing.assert_allclose(ours, np.moveaxis(theirs.numpy(), 1, -1), atol=2e-5)


def both(form, x, kernel):
    y, pullback = jax.vjp(form, x, kernel)
    return y, pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


@pytest.mark.parametrize("size, width", SHAPES)
def test_both_forms_have_one_gradient(size, width):
    with jax.enable_x64(True):
        x, kernel = map(jnp.asarray, arrays(size, width, np.float64))
        forms = {
            depthwise: lambda x, k: module._plain(x, k, stride=1),
            lambda x, k: depthwise(x, k, 2): lambda x, k: module._plain(x, k, stride=2),
            depthwise_transpose: module._plain_transpose,
        }
        for pair in forms.items():
            ours, theirs = (jax.jit(functools.partial(both, form))(x, kernel) for form in pair)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), ours, theirs)


def test_large_windows_are_summed_slice_by_slice():
    x, kernel = arrays((3, 2, 4), 7)
    ours = jax.jit(depthwise)(x, kernel)
    np.testing.assert_allclose(ours, module._plain(x, kernel, stride=1), atol=2e-5)


def test_narrow_types_are_summed_wide():
    x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in arrays((6, 6, 6), 3))
    wide = depthwise(x.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_array_equal(depthwise(x, kernel), wide.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    "x, kernel, stride, message",
    [
        ((1, 4, 4, 4, 2), (3, 3, 3, 3), 1, "b v c"),
        ((1, 4, 4, 2), (3, 3, 3, 2), 1, "2 or 3 dimensions"),
        ((1, 4, 4, 2), (3, 4, 2), 1, "odd"),
        ((1, 4, 4, 2), (3, 3, 2), 3, "stride must be 1 or 2"),
    ],
)
def test_what_does_not_fit_is_refused(x, kernel, stride, message):
    with pytest.raises(ValueError, match=message):
        depthwise(jnp.zeros(x), jnp.zeros(kernel), stride)
    with pytest.raises(ValueError, match="cast one"):
        depthwise_transpose(jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2), jnp.bfloat16))
