"""Entropies and class counts, against reference values and closed forms."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.inference.windows.entropy import background, class_counts, mask_classes, voxel_entropy, winner


@pytest.mark.reference
def test_entropy_and_its_gradient_equal_the_reference(reference):
    folder = reference / "losses_metrics"
    expected = json.loads((folder / "losses.json").read_text())["entropy_random"]
    logits = jnp.moveaxis(np.load(folder / "loss_inputs.npz")["logits"], 1, -1)
    soft, grad = jax.value_and_grad(lambda x: voxel_entropy(x).mean())(logits)
    assert soft == pytest.approx(expected["softmax_mean"], rel=1e-5)
    assert jnp.linalg.norm(grad) == pytest.approx(expected["softmax_grad_l2"], rel=1e-5)
    # the reference is a mean over voxels and channels, ours sums the channels
    binary, grad = jax.value_and_grad(lambda x: voxel_entropy(x, "sigmoid").mean())(logits)
    assert binary / logits.shape[-1] == pytest.approx(expected["sigmoid_mean"], rel=1e-5)
    assert jnp.linalg.norm(grad) / logits.shape[-1] == pytest.approx(expected["sigmoid_grad_l2"], rel=1e-5)


def test_entropy_of_extreme_logits_is_finite_and_closed_forms_hold():
    logits = jnp.array([[0.0, 0, 0, 0], [1e4, -1e4, 0, 3e38], [5, -jnp.inf, 5, -jnp.inf]])
    h, grad = jax.vmap(jax.value_and_grad(voxel_entropy))(logits)
    np.testing.assert_allclose(h, [np.log(4), 0, np.log(2)], atol=1e-6)
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(voxel_entropy(logits[:1], "softmax", exclude=(1, 2)), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(voxel_entropy(logits[:1], "sigmoid"), 4 * np.log(2), rtol=1e-6)
    assert background(jnp.zeros((1, 4)), "softmax")[0] == 0.25
    assert background(jnp.zeros((1, 4)), "sigmoid")[0] == pytest.approx(1 / 16)


def test_class_counts_are_weighted():
    logits, weight = jnp.array([[2.0, 1], [-2, -1], [3, 4]]), jnp.array([1.0, 10, 100])
    shaped = logits.reshape(1, 3, 1, 1, 2), weight.reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(class_counts(*shaped), [1, 110])
    np.testing.assert_array_equal(class_counts(*shaped, "sigmoid"), [101, 101])
    np.testing.assert_array_equal(class_counts(*shaped, "softmax", (1,)), [111, 0])


def test_masked_classes_get_no_probability_and_one_must_be_left():
    p = jax.nn.softmax(mask_classes(jnp.zeros((1, 4)), (1, 3)))
    np.testing.assert_allclose(p, [[0.5, 0, 0.5, 0]])
    with pytest.raises(ValueError, match="exclude: 4 of 4 classes; leave at least one"):
        mask_classes(jnp.zeros((1, 4)), range(4))


@pytest.mark.parametrize("classes, kind", [(1, np.uint8), (7, np.uint8), (256, np.uint8), (300, np.int32)])
def test_the_winner_is_the_first_of_the_largest(classes, kind):
    logits = np.random.default_rng(0).integers(-3, 3, (4, 5, classes)).astype(np.float32)  # many are equal
    logits[0, 0] = -np.inf
    logits[1, :, 0] = -np.inf
    label, largest = jax.jit(winner)(logits)
    assert label.dtype == kind
    np.testing.assert_array_equal(label, logits.argmax(-1))
    np.testing.assert_array_equal(largest, logits.max(-1))
