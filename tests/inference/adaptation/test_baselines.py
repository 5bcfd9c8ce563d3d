"""The baselines against their definitions, written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ukbob_jax.inference.adaptation import baselines
from ukbob_jax.models.blocks import Norm

ROI = (4, 4, 4)


class Ours(nn.Module):
    """The convolutional network of the other tests with the batch norm of our Swin-UNETR, which also counts."""

    drop_rate: float = 0.5

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        x = nn.Conv(4, (3, 3, 3), name="stem")(x)
        x = nn.relu(Norm("batch", name="norm1")(x, train))
        x = nn.Dropout(self.drop_rate)(x, deterministic=not train)
        return nn.Conv(3, (1, 1, 1), name="out")(x)


@pytest.fixture(scope="module", params=["flax", "ours"])
def batch_norm_net(networks, request):
    """(model, params, state) with statistics that are not those of any scan here."""
    model = networks[1]() if request.param == "flax" else Ours()
    variables = model.init(jax.random.key(0), jnp.zeros((1, *ROI, 2)))
    state = {"batch_stats": jax.tree.map(lambda leaf: leaf + 0.5, variables["batch_stats"])}
    return model, variables["params"], state


def scan(shape=(8, 4, 8), seed=0):
    return 3 + 2 * np.random.default_rng(seed).normal(size=(*shape, 2)).astype(np.float32)


def windows(x):
    return [x[i : i + 4, :, k : k + 4] for i in (0, 4) for k in (0, 4)]


def test_tent_is_an_adam_step_after_each_batch_of_windows(networks):
    model = networks[0]()
    params = model.init(jax.random.key(1), jnp.zeros((1, *ROI, 2)))["params"]
    x, tx, norm = scan(), optax.adam(0.02), params["norm1"]
    state = tx.init(norm)

    def entropy(norm, window):
        p = jax.nn.softmax(model.apply({"params": {**params, "norm1": norm}}, window[None]))
        return -jnp.mean(jnp.sum(p * jnp.log(p), -1))

    for window in windows(x):
        updates, state = tx.update(jax.grad(entropy)(norm, window), state)
        norm = optax.apply_updates(norm, updates)
    ours = baselines.tent(model, params, x, roi=ROI, learning_rate=0.02)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours.params["norm1"], dict(norm))
    after = np.mean([float(entropy(norm, window)) for window in windows(x)])
    assert ours.entropy_after == pytest.approx(after, rel=1e-4) and ours.entropy_after < ours.entropy_before
    assert ours.selected == ("norm1/bias", "norm1/scale") and ours.accepted


def test_statistics_are_those_of_all_windows_together(batch_norm_net):
    model, params, state = batch_norm_net
    x = scan()
    out = np.stack(
        [
            np.asarray(model.apply({"params": params, **state}, w[None], capture_intermediates=True,
                                   mutable=["intermediates"])[1]
                       ["intermediates"]["stem"]["__call__"][0])
            for w in windows(x)
        ]
    )  # fmt: skip
    mean, var = out.mean((0, 1, 2, 3, 4)), out.var((0, 1, 2, 3, 4))
    for fraction in (0.0, 0.3, 1.0):
        ours = baselines.batch_norm(model, params, x, roi=ROI, model_state=state, fraction=fraction, batch=2)
        moved = ours.model_state["batch_stats"]["norm1"]
        source = state["batch_stats"]["norm1"]
        np.testing.assert_allclose(
            moved["mean"], (1 - fraction) * source["mean"] + fraction * mean, rtol=1e-4
        )
        # ours divides by n - 1, of 128 voxels
        np.testing.assert_allclose(moved["var"], (1 - fraction) * source["var"] + fraction * var, rtol=0.01)
        assert set(moved) == set(source)
        assert ours.params is params
    assert ours.entropy_after != ours.entropy_before


def test_tent_replaces_statistics_where_there_are_any(batch_norm_net):
    model, params, state = batch_norm_net
    before = jax.tree.map(np.array, (params, state))
    ours = baselines.tent(model, params, scan(), roi=ROI, model_state=state)
    whole = baselines.batch_norm(model, params, scan(), roi=ROI, model_state=state, fraction=1.0)
    jax.tree.map(np.testing.assert_array_equal, ours.model_state, whole.model_state)
    jax.tree.map(np.testing.assert_array_equal, before, (params, state))


def test_networks_without_batch_norm_and_wrong_fractions_are_named(networks, batch_norm_net):
    model = networks[0]()
    params = model.init(jax.random.key(1), jnp.zeros((1, *ROI, 2)))["params"]
    with pytest.raises(ValueError, match="needs a network with batch norm"):
        baselines.batch_norm(model, params, scan(), roi=ROI)
    with pytest.raises(ValueError, match="fraction 2 is outside 0 to 1"):
        baselines.batch_norm(*batch_norm_net[:2], scan(), roi=ROI, model_state=batch_norm_net[2], fraction=2)
