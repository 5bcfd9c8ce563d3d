"""Means over networks and views, against probabilities added by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax import anatomy, mirroring
from ukbob_jax.inference.windows import averaging
from ukbob_jax.inference.windows.averaging import Average, View

NAMES = {
    0: "background", 1: "kidney_right", 2: "kidney_left", 3: "liver", 4: "lung_upper_lobe_left",
    5: "lung_lower_lobe_left", 6: "lung_upper_lobe_right", 7: "lung_middle_lobe_right", 8: "lung_lower_lobe_right",
}  # fmt: skip


def table(variables, x):
    """b x y z c -> b x y z k: a logit per class that depends on the voxel's value and place."""
    place = jnp.arange(x.shape[1], dtype=jnp.float32).reshape(1, -1, 1, 1, 1) / x.shape[1]
    value = x[..., :1] + jnp.broadcast_to(place, (*x.shape[:-1], 1))
    return jnp.sin(value * variables["a"].reshape(1, 1, 1, 1, -1))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def window():
    return np.random.default_rng(0).normal(size=(2, 6, 4, 3, 1)).astype(np.float32)


def variables(seed, k=9):
    return {"a": jnp.asarray(np.random.default_rng(seed).normal(size=k), jnp.float32)}


def test_members_and_scales_are_mean_probabilities(window):
    members = [variables(1), variables(2)]
    average = Average(table, (View(), View(scale=0.9)))
    ours = jax.nn.softmax(average(averaging.stack(members), window))
    expected = np.mean(
        [softmax(np.asarray(table(m, window * np.float32(s)))) for m in members for s in (1, 0.9)], 0
    )
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_mirrored_view_names_sides_as_in_the_scan(window):
    names = {0: "background", 1: "kidney_right", 2: "kidney_left", 3: "liver"}
    mirror = averaging.mirror_table(names, 4)
    own = variables(1, 4)
    ours = jax.nn.softmax(Average(table, averaging.MIRRORED, (), mirror)(averaging.stack([own]), window))
    turned = softmax(np.asarray(table(own, window[:, ::-1])))[:, ::-1][..., [0, 2, 1, 3]]
    expected = (softmax(np.asarray(table(own, window))) + turned) / 2
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_mirrored_view_decides_on_whole_lungs_and_not_on_lobes(window):
    own, mirror = variables(3), averaging.mirror_table(NAMES, 9)
    ours = np.asarray(
        jax.nn.softmax(Average(table, averaging.MIRRORED, (), mirror)(averaging.stack([own]), window))
    )
    plain = softmax(np.asarray(table(own, window)))
    turned = softmax(np.asarray(table(own, window[:, ::-1])))[:, ::-1]
    np.testing.assert_allclose(ours.sum(-1), 1, rtol=1e-5)
    for lobes, others in (([4, 5], [6, 7, 8]), ([6, 7, 8], [4, 5])):
        whole = (plain[..., lobes].sum(-1) + turned[..., others].sum(-1)) / 2
        np.testing.assert_allclose(ours[..., lobes].sum(-1), whole, atol=1e-6)
        within = ours[..., lobes] / ours[..., lobes].sum(-1, keepdims=True)
        expected = plain[..., lobes] / plain[..., lobes].sum(-1, keepdims=True)
        np.testing.assert_allclose(within, expected, atol=1e-5)


def test_averaging_a_mirror_symmetric_answer_changes_nothing():
    """A body that is its own mirror image, seen by a network that says so: sides keep their names."""
    x = np.zeros((1, 8, 2, 2, 1), np.float32)

    def sides(_, x):
        right = jnp.broadcast_to((jnp.arange(8) >= 4).reshape(1, 8, 1, 1), x.shape[:4])
        return jnp.stack([0 * x[..., 0], jnp.where(right, 5.0, 0), jnp.where(right, 0.0, 5)], -1)

    names = {0: "background", 1: "kidney_right", 2: "kidney_left"}
    average = Average(sides, averaging.MIRRORED, (), averaging.mirror_table(names, 3))
    plain = jax.nn.softmax(sides(None, x))
    np.testing.assert_allclose(jax.nn.softmax(average({"a": jnp.zeros((1, 1))}, x)), plain, atol=1e-6)


def test_excluded_classes_get_nothing_and_logits_stay_finite(window):
    average = Average(table, exclude=(2,))
    ours = average(averaging.stack([variables(1)]), window)
    assert np.isfinite(ours).all() and jax.nn.softmax(ours)[..., 2].max() < 1e-30


def test_regions_are_averaged_as_probabilities_of_their_own(window):
    members = [variables(1, 3), variables(2, 3)]
    ours = Average(table, activation="sigmoid")(averaging.stack(members), window)
    expected = np.mean([1 / (1 + np.exp(-np.asarray(table(m, window)))) for m in members], 0)
    np.testing.assert_allclose(jax.nn.sigmoid(ours), expected, atol=1e-6)


def test_mirror_groups_of_the_whole_taxonomy():
    groups = mirroring.groups(anatomy.NAMES)
    for low, high in anatomy.PAIRS:
        assert groups[low] == ((low,), (high,)) and groups[high] == ((high,), (low,))
    assert groups[13] == ((12, 13, 14), (10, 11)) and groups[10] == ((10, 11), (12, 13, 14))
    assert all(groups[i] == ((i,), (i,)) for i in anatomy.ONE_SIDED if i != 13 and i != 34)
    with pytest.raises(ValueError, match="kidney_left but not kidney_right"):
        mirroring.groups({0: "background", 1: "kidney_left"})
