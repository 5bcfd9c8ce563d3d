"""Reference values of the self-supervised objectives, in our order of axes."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def ssl(reference):
    """name -> its values, and its arrays as they are stored."""

    def read(name):
        folder = reference / "ssl"
        if not (folder / f"{name}.json").is_file():
            pytest.skip(f"no reference values of {name}")
        return SimpleNamespace(
            values=json.loads((folder / f"{name}.json").read_text()),
            arrays=dict(np.load(folder / f"{name}.npz")),
        )

    return read


def last(array):
    """`b c x y z` as `b x y z c`."""
    return np.moveaxis(array, 1, -1)


def projection(array):
    """The reference's order-sensitive sum: sum_i x_i cos(0.7 i + 0.3) / sqrt(n), C order, float64."""
    flat = np.asarray(array, np.float64).ravel()
    return float(flat @ np.cos(0.7 * np.arange(flat.size) + 0.3) / np.sqrt(flat.size))


def check(function, expected, *arguments, names=(), channels_first=(), value=1e-5, gradient=1e-5):
    """`function(*arguments)` has the reference's value, and its gradient the reference's sums.

    Args:
        function: to be differentiated.
        expected: of the reference: "value" and "grad_NAME".
        arguments: of the function.
        names: of the reference's gradients for the first arguments.
        channels_first: names whose gradients the reference has as `b c x y z`.
        value, gradient: relative tolerances; the reference's README has their defaults for float32.
    """
    np.testing.assert_allclose(function(*arguments), expected["value"], rtol=value, atol=1e-6)
    if not names:
        return
    found = jax.grad(function, argnums=tuple(range(len(names))))(*arguments)
    for name, array in zip(names, found):
        array = np.asarray(array, np.float64)
        array = np.moveaxis(array, -1, 1) if name in channels_first else array
        want = expected[f"grad_{name}"]
        np.testing.assert_allclose(np.linalg.norm(array), want["l2"], rtol=gradient, atol=1e-7)
        np.testing.assert_allclose(
            projection(array), want["proj"], rtol=0, atol=1e-6 if gradient <= 1e-5 else 1e-5
        )
