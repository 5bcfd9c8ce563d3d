import jax
import numpy as np
import pytest

from tests.sentinel import reference as pack
from ukbob_jax.sentinel import losses

UNIQUE = ("all_distinct", "each_class_twice", "two_samples", "three_samples")
ALL = (*UNIQUE, "four_classes", "one_class")


@pytest.fixture(scope="module")
def case(reference):
    return pack.facts(reference, "losses.json"), pack.arrays(reference)


@pytest.mark.reference
def test_weighted_mse_and_its_gradient_equal_the_released_code(case):
    facts, arrays = case
    value, gradient = jax.value_and_grad(losses.weighted_mse)(arrays["loss_pred"], arrays["loss_true"])
    assert value == pytest.approx(facts["weighted_mse"]["value_float32"], abs=1e-6)
    np.testing.assert_allclose(gradient, facts["weighted_mse"]["grad_float32"], atol=1e-6)
    for dice, weight in facts["weights_by_true_dice_float32"].items():
        true = np.float32([float(dice)])
        assert losses.weighted_mse(true + 1, true) == pytest.approx(weight, abs=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("name", ALL)
def test_pairs_reach_the_greatest_similarity_without_fixed_points(case, name):
    facts, arrays = case
    vectors = arrays[f"loss_emb_{name}"].astype(np.float64)
    pairs = losses.pair(vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    want = facts["ranking"][name]
    assert (unit * unit[pairs]).sum() == pytest.approx(want["total_similarity"], abs=1e-6)
    assert sorted(pairs) == list(range(len(pairs)))
    assert (pairs != np.arange(len(pairs))).all()
    if name in UNIQUE:
        assert [[i, int(j)] for i, j in enumerate(pairs)] == want["pairs"]


@pytest.mark.reference
@pytest.mark.parametrize("name", UNIQUE)
def test_ranking_and_its_gradient_equal_the_released_code(case, name):
    facts, arrays = case
    vectors = arrays[f"loss_emb_{name}"]
    p, t = (arrays[f"loss_{which}"][: len(vectors)] for which in ("pred", "true"))
    value, gradient = jax.value_and_grad(losses.ranking_loss)(p, t, vectors)
    assert value == pytest.approx(facts["ranking"][name]["value"], abs=1e-6)
    np.testing.assert_allclose(gradient, facts["ranking"][name]["grad"], atol=1e-6)


def test_equal_truths_cost_the_margin_without_gradient():
    p, t, pairs = np.float32([0.2, 0.9]), np.float32([0.5, 0.5]), np.array([1, 0])
    value, gradient = jax.value_and_grad(losses.ranking_loss)(p, t, None, pairs)
    assert value == pytest.approx(1e-4)
    assert not gradient.any()


def test_neighbours_meet_their_own_class_inside_jit():
    classes = np.array([3, 1, 3, 1, 2, 3])
    pairs = np.asarray(jax.jit(losses.neighbours)(classes))
    assert sorted(pairs) == list(range(6))
    assert (pairs != np.arange(6)).all()
    assert (classes[pairs] == classes).sum() == 6 - 3  # but one of each class


def test_the_saddle_point_of_the_auc_margin_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=20).astype(np.float32), np.arange(20) < 6
    up, down = scores[positive], scores[~positive]
    a, b = up.mean(), down.mean()
    value = losses.auc_margin(scores, positive, a, b, 1 + b - a)
    pairs = np.mean((1 - (up[:, None] - down[None])) ** 2)
    assert value == pytest.approx(pairs, rel=1e-5)
    slopes = jax.grad(losses.auc_margin, (2, 3, 4))(scores, positive, a, b, 1 + b - a)
    np.testing.assert_allclose(slopes, 0, atol=1e-5)


def test_the_auc_margin_of_a_batch_of_one_side_is_finite_and_moves_no_alpha():
    scores, positive = np.float32([0.3, 0.4]), np.array([True, True])
    value, slope = jax.value_and_grad(losses.auc_margin, 4)(scores, positive, 0.0, 0.0, 0.5)
    assert value == pytest.approx(np.mean(scores**2))
    assert slope == 0


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: losses.pair(np.ones((1, 4))), "needs two samples"),
        (lambda: losses.pair(np.full((2, 4), np.nan)), "NaN or infinite"),
        (lambda: losses.weighted_mse(np.ones(3), np.ones(2)), r"predictions are \(3,\), truths \(2,\)"),
        (lambda: losses.ranking_loss(np.ones(2), np.ones(2)), "needs pairs="),
        (lambda: losses.ranking_loss(np.ones(2), np.ones(2), None, np.array([0])), "1 pairs for 2 samples"),
    ],
)
def test_bad_input_is_one_line(call, what):
    with pytest.raises(ValueError, match=what):
        call()
