"""Losses of labels that are believed to different degrees: by their definition in float64, and where it falls away."""

import functools

import jax
import numpy as np
import pytest

from ukbob_jax.training import losses

OPTIONS = (
    {}, {"squared": True}, {"batch": True}, {"jaccard": True}, {"include_background": False, "lambda_ce": 0.5},
)  # fmt: skip
K = 4
REGIONS = ((1, 2, 3), (1, 3), (3,))


def case(seed=0):
    """logits `2 3 4 5 k`, labels `2 3 4 5` with some ignored, and weights `2 k`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, (2, 3, 4, 5))
    labels[0, 0] = 255
    weights = rng.uniform(0.1, 1, (2, K)).astype(np.float32)
    weights[:, 0] = 1
    return rng.normal(0, 2, (2, 3, 4, 5, K)).astype(np.float32), labels, weights


@functools.cache
def compiled(function, **options):
    return jax.jit(jax.value_and_grad(functools.partial(function, **options)))


def naive(
    z,
    labels,
    w,
    softmax=True,
    squared=False,
    batch=False,
    jaccard=False,
    include_background=True,
    lambda_ce=1.0,
):
    """The weighted loss in float64, case by case, class by class and voxel by voxel, from its definition."""
    p_of = np.exp(z - z.max(-1, keepdims=True)) if softmax else 1 / (1 + np.exp(-z))
    p_of = p_of / p_of.sum(-1, keepdims=True) if softmax else p_of
    sums = np.zeros((2, K, 3))
    ce = total = 0.0
    for b in range(2):
        kept = labels[b] != 255
        p, true = p_of[b][kept], labels[b][kept]
        for c in range(K):
            t = true == c
            sums[b, c] = (p[:, c] * t).sum(), (p[:, c] ** (2 if squared else 1)).sum(), t.sum()
            if not softmax:
                ce -= w[b, c] * np.where(t, np.log(p[:, c]), np.log(1 - p[:, c])).sum()
                total += w[b, c] * len(t)
        if softmax:
            ce -= sum(w[b, c] * np.log(p[v, c]) for v, c in enumerate(true))
            total += w[b, true].sum()
    w = w.astype(np.float64)
    if batch:
        sums, w = (w[..., None] * sums).sum(0, keepdims=True), w.mean(0, keepdims=True)
    first = 0 if include_background else 1
    below = sums[..., 1] + sums[..., 2]
    below = 2 * (below - sums[..., 0]) if jaccard else below
    terms = 1 - (2 * sums[..., 0] + 1e-5) / (below + 1e-5)
    return (w * terms)[:, first:].sum() / w[:, first:].sum() + lambda_ce * ce / total


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("function", [losses.dice_ce, losses.dice_bce_labels])
def test_value_and_gradient_are_those_of_the_definition(function, options):
    logits, labels, weights = case()
    value, gradient = compiled(function, **options)(logits, labels, weights=weights)
    exact = functools.partial(naive, labels=labels, w=weights, softmax=function is losses.dice_ce, **options)
    z = logits.astype(np.float64)
    np.testing.assert_allclose(value, exact(z), rtol=2e-6)  # float32 sums of a hundred voxels
    rng = np.random.default_rng(1)
    for _ in range(3):
        way = rng.normal(size=z.shape)
        slope = (exact(z + 1e-5 * way) - exact(z - 1e-5 * way)) / 2e-5  # exact to 1e-9
        np.testing.assert_allclose((np.float64(gradient) * way).sum(), slope, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("function", [losses.dice_ce, losses.dice_bce_labels])
def test_weights_of_one_are_the_plain_loss(function, options):
    logits, labels, weights = case()
    plain = compiled(function, **options)(logits, labels)
    ones = compiled(function, **options)(logits, labels, weights=np.ones_like(weights))
    np.testing.assert_allclose(ones[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(ones[1], plain[1], rtol=1e-5, atol=1e-8)
    times = compiled(function, **options)(logits, labels, weights=np.full_like(weights, 0.25))
    np.testing.assert_allclose(times[0], plain[0], rtol=1e-6)  # only how weights compare counts


def test_a_label_of_weight_zero_has_no_term_and_its_voxels_no_cross_entropy():
    logits, labels, weights = case()
    weights[:] = 1
    weights[:, 2] = 0
    dice_off = compiled(losses.dice_ce, lambda_dice=0.0)
    without = np.where(labels == 2, 255, labels)
    np.testing.assert_allclose(
        dice_off(logits, labels, weights=weights)[0], dice_off(logits, without)[0], rtol=1e-6
    )
    nothing = compiled(losses.dice_ce)(logits, labels, weights=np.zeros_like(weights))
    assert nothing[0] == 0 and not np.any(nothing[1])


def test_weights_and_annotation_go_together():
    """The class that was not annotated has no term, whatever its weight; its voxels are background."""
    logits, labels, weights = case()
    annotated = np.ones((2, K), bool)
    annotated[:, 3] = False
    value, _ = compiled(losses.dice_ce)(logits, labels, annotated=annotated, weights=weights)
    other = weights.copy()
    other[:, 3] = 0.01
    np.testing.assert_array_equal(
        value, compiled(losses.dice_ce)(logits, labels, annotated=annotated, weights=other)[0]
    )
    other[:, 2] = 0.01
    assert value != compiled(losses.dice_ce)(logits, labels, annotated=annotated, weights=other)[0]


def test_a_region_counts_as_much_as_the_least_of_its_values():
    logits, labels, _ = case()
    weights = np.ones((2, 256), np.float32)
    weights[0, 1], weights[0, 2], weights[1, 3] = 0.5, 0.25, 0.75
    of_regions = np.float32([[0.25, 0.5, 1], [0.75, 0.75, 0.75]])
    valid = labels != 255
    targets = np.stack([np.isin(labels, values) for values in REGIONS], axis=-1)
    expected = compiled(losses.dice_bce)(logits[..., :3], targets, valid=valid, weights=of_regions)
    found = compiled(losses.dice_bce_regions, regions=REGIONS)(logits[..., :3], labels, weights=weights)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-8)


def test_deep_supervision_hands_weights_to_every_level():
    logits, labels, weights = case()
    few = np.random.default_rng(3).normal(size=(2, 1, 2, 2, K)).astype(np.float32)
    summed = losses.deep(losses.dice_ce, ((1, 1, 1), (2, 2, 2)))
    one, two = (
        losses.dice_ce(z, y, weights=weights) for z, y in ((logits, labels), (few, labels[:, 1::2, 1::2, 1::2]))
    )  # fmt: skip
    found = summed([logits, few], labels, weights=weights)
    np.testing.assert_allclose(found, (one + two / 2) / 1.5, rtol=1e-6)


def test_weights_of_another_shape_are_refused():
    logits, labels, weights = case()
    for function in (losses.dice_ce, losses.dice_bce_labels):
        with pytest.raises(ValueError, match="weights has shape"):
            function(logits, labels, weights=weights[:, :3])
