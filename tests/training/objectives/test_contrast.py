"""NT-Xent and Swin-UNETR's pre-training loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.objectives.conftest import check, last
from ukbob_jax.errors import ConfigError
from ukbob_jax.training import sharding
from ukbob_jax.training.objectives import contrast
from ukbob_jax.training.objectives.contrast import nt_xent, swin_unetr


@pytest.mark.reference
@pytest.mark.parametrize("tau", [0.5, 0.1])
@pytest.mark.parametrize("name", ["nnssl_simclr", "monai", "nnssl_swin"])
def test_nt_xent_equals_the_reference(ssl, name, tau):
    found = ssl("contrast")
    expected = found.values[f"{name}_tau{tau}"]
    first, second = found.arrays["nt_zi"], found.arrays["nt_zj"]
    gradient = 1e-5 if tau == 0.5 else 1e-4  # float32, sharp scores
    if name == "nnssl_swin":
        check(
            lambda x: nt_xent(*jnp.split(x, 2), tau), expected, np.concatenate([first, second]), names=("x",),
            gradient=gradient,
        )  # fmt: skip
    else:
        check(lambda a, b: nt_xent(a, b, tau), expected, first, second, names=("a", "b"), gradient=gradient)


def test_one_pair_costs_nothing_and_sharp_temperatures_stay_finite():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 16)).astype(np.float32)
    assert nt_xent(first[:1], second[:1]) == 0
    assert np.isfinite(nt_xent(first, second, 0.005))
    loss, grad = jax.value_and_grad(nt_xent)(jnp.zeros((2, 3)), jnp.ones((2, 3)))
    assert np.isfinite(loss) and np.isfinite(grad).all()


def test_the_length_of_rows_does_not_matter():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 4, 8)).astype(np.float32)
    scale = np.array([[0.1], [3.0], [1.0], [20.0]], np.float32)
    np.testing.assert_allclose(nt_xent(first * scale, second), nt_xent(first, second), rtol=1e-6)
    np.testing.assert_allclose(nt_xent(second, first), nt_xent(first, second), rtol=1e-6)


def test_rows_on_several_devices_are_compared_as_one_batch():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 8, 16)).astype(np.float32)
    place = sharding.batch_sharding(sharding.make_mesh(data=4, batch_size=8))
    split = [jax.device_put(x, place) for x in (first, second)]
    loss, grads = jax.jit(jax.value_and_grad(nt_xent, argnums=(0, 1)))(*split)
    expected, wanted = jax.value_and_grad(nt_xent, argnums=(0, 1))(first, second)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, wanted)


@pytest.mark.reference
@pytest.mark.parametrize("weights, name", [((1, 1, 1), "1_1_1"), ((0.5, 2.0, 0.25), "0.5_2.0_0.25")])
def test_swin_unetrs_loss_equals_the_reference(ssl, weights, name):
    found = ssl("contrast")
    logits, turns, vectors = (found.arrays[f"swin_{n}"] for n in ("rot_logits", "rot", "contrast"))
    rebuilt, image = (last(found.arrays[f"swin_{n}"]) for n in ("rec", "img"))

    def total(logits, vectors, rebuilt):
        return swin_unetr(logits, turns, vectors, rebuilt, image, weights).total

    check(
        total, found.values[f"swin_total_{name}"], logits, vectors, rebuilt, names=("rl", "c", "y"),
        channels_first=("y",),
    )  # fmt: skip
    parts = swin_unetr(logits, turns, vectors, rebuilt, image)
    for ours, theirs in (("reconstruction", "l1"), ("rotation", "rotation_ce"), ("contrast", "contrast")):
        want = found.values["swin_parts"][theirs]["value"]
        np.testing.assert_allclose(getattr(parts, ours), want, rtol=1e-5)


@pytest.mark.reference
def test_turns_in_the_last_two_axes_are_the_references(ssl):
    arrays = ssl("contrast").arrays
    turned = contrast.turn(last(arrays["rot_in"]), jnp.asarray(arrays["rot_k"], jnp.int32), (1, 2))
    np.testing.assert_array_equal(turned, last(arrays["rot_out"]))


def test_four_quarter_turns_change_nothing_and_crops_that_are_not_square_are_refused():
    x = jnp.arange(2 * 4 * 4 * 3.0).reshape(2, 4, 4, 3, 1)
    once = contrast.turn(x, jnp.array([1, 2]))
    back = contrast.turn(once, jnp.array([3, 2]))
    np.testing.assert_array_equal(back, x)
    assert (once != x).any()
    with pytest.raises(
        ConfigError, match=r"config.data.crop: \(4, 4, 3\) is not square in its axes \(1, 2\)"
    ):
        contrast.turn(x, jnp.array([0, 0]), (1, 2))


def test_the_projection_normalises_each_row_by_itself():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 6)).astype(np.float32)
    head = contrast.Projection(8)
    params = head.init(jax.random.key(0), rows)
    whole = head.apply(params, rows)
    assert whole.shape == (4, 8)
    np.testing.assert_allclose(whole[2:3], head.apply(params, rows[2:3]), atol=1e-6)


@pytest.mark.parametrize(
    "fields, named",
    [({"temperature": 0.0}, "config.pretrain.temperature: 0.0"), ({"width": 0}, "config.pretrain.width: 0")],
)
def test_options_that_cannot_be_used_are_refused(fields, named):
    with pytest.raises(ConfigError, match=named):
        contrast.SimClrOptions(**fields)
