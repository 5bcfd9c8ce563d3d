"""FairSeg's error-bound scaling: by its definition in float64, and without the two defects of its released form."""

import functools

import jax
import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.training import error_bounds, losses, sharding

K = 3
OPTIONS = (
    {},
    {"squared": True, "batch": True},
    {"include_background": False, "gamma": 2.0},
    {"jaccard": True},
)


def case(seed=0, groups=(0, 1, 1, 0)):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, (4, 3, 4, 5))
    labels[0, 0] = 255
    return rng.normal(0, 2, (4, 3, 4, 5, K)).astype(np.float32), labels, np.array(groups, np.int32)


@functools.cache
def compiled(function, **options):
    return jax.jit(jax.value_and_grad(functools.partial(function, **options)))


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def dice_term(p, t, squared, jaccard):
    below = (p**2 if squared else p).sum() + t.sum()
    below = 2 * (below - (p * t).sum()) if jaccard else below
    return 1 - (2 * (p * t).sum() + 1e-5) / (below + 1e-5)


def naive(p, labels, groups, kept, squared=False, batch=False, include_background=True, gamma=1.0, jaccard=False,
          form="present", total=2):  # fmt: skip
    """The Dice loss in float64, group by group and class by class, from probabilities `b x y z k`."""
    first = 0 if include_background else 1
    of_group = {g: 0.0 for g in range(total)} if form == "released" else {}
    for g in set(groups.tolist()) - {-1}:
        members = np.flatnonzero(groups == g)
        valid = labels[members] != 255
        terms = []
        for c in range(first, K):
            t = labels[members][valid] == c
            if t.any() or form == "released":
                terms.append(dice_term(p[members][valid][:, c], t, squared, jaccard))
        of_group[g] = np.mean(terms)
    weight = {g: np.tanh((min(of_group.values()) / loss) ** gamma) for g, loss in of_group.items() if loss}
    weight[-1] = np.tanh(1.0)
    kept.append(weight)
    scaled = p * np.array([weight[g] for g in groups.tolist()]).reshape(-1, 1, 1, 1, 1)
    valid, terms = labels != 255, []
    for c in range(first, K):
        if batch:
            terms.append(dice_term(scaled[valid][:, c], labels[valid] == c, squared, jaccard))
        else:
            terms += [
                dice_term(scaled[b][valid[b]][:, c], labels[b][valid[b]] == c, squared, jaccard)
                for b in range(4)
            ]
    return np.mean(terms)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("groups", [(0, 1, 1, 0), (0, -1, 1, 1), (2, 0, 1, 0)])
def test_value_and_gradient_are_those_of_the_definition(options, groups):
    logits, labels, groups = case(groups=groups)
    value, gradient = compiled(losses.dice_ce, lambda_ce=0.0, **options)(logits, labels, groups=groups)
    kept: list[dict] = []
    z = logits.astype(np.float64)
    np.testing.assert_allclose(value, naive(softmax(z), labels, groups, kept, **options), rtol=2e-6)
    assert 0 < min(kept[0].values()) < max(kept[0].values()) == pytest.approx(np.tanh(1.0))

    def with_weights_held(z):  # no gradient goes through the weights
        scale = np.array([kept[0][g] for g in groups.tolist()]).reshape(-1, 1, 1, 1, 1)
        plain = {name: v for name, v in options.items() if name != "gamma"}
        return naive(softmax(z) * scale / np.tanh(1.0), labels, np.full(4, -1), [], **plain)

    way = np.random.default_rng(1).normal(size=z.shape)
    slope = (with_weights_held(z + 1e-5 * way) - with_weights_held(z - 1e-5 * way)) / 2e-5
    np.testing.assert_allclose((np.float64(gradient) * way).sum(), slope, rtol=2e-5, atol=1e-6)


def test_the_released_form_is_fairsegs_with_both_groups_in_the_batch():
    logits, labels, groups = case()
    options = {"squared": True, "batch": True, "gamma": 1.5}
    value, _ = compiled(losses.dice_ce, lambda_ce=0.0, bound="released", num_groups=2, **options)(
        logits, labels, groups=groups
    )
    expected = naive(softmax(np.float64(logits)), labels, groups, [], form="released", **options)
    np.testing.assert_allclose(value, expected, rtol=2e-6)


def test_defect_1_a_group_that_is_not_in_the_batch_silences_the_released_loss_and_not_ours():
    logits, labels, groups = case(groups=(1, 1, 1, 1))
    released, none = compiled(losses.dice_ce, lambda_ce=0.0, bound="released", num_groups=2)(
        logits, labels, groups=groups
    )
    assert np.allclose(released, 1, atol=1e-5) and not np.any(none)  # nothing of any probability is left
    ours, gradient = compiled(losses.dice_ce, lambda_ce=0.0)(logits, labels, groups=groups)
    assert ours < 0.9 and np.abs(gradient).max() > 1e-4
    half = compiled(losses.dice_ce, lambda_ce=0.0, bound="released", num_groups=1)
    np.testing.assert_allclose(
        half(logits, labels, groups=groups)[0], ours, rtol=1e-6
    )  # all groups are there


def test_defect_2_a_class_that_a_groups_crops_do_not_show_is_no_error_of_the_group():
    """The first group has the larger errors; crops of the second show no class 2, of which a little is predicted."""
    labels = np.zeros((2, 4, 4, 4), int)
    labels[:, :2] = 1
    labels[0, 3] = 2
    z = 3.0 * np.eye(K)[labels].astype(np.float32)
    groups = np.array([0, 1], np.int32)
    found = {}
    for form in error_bounds.FORMS:
        kept = losses._scaled(
            losses._sums(np.asarray(softmax(z)).reshape(2, -1, K), np.eye(K, dtype=bool)[labels].reshape(2, -1, K),
                         np.ones((2, 64), bool), False),
            np.ones((2, K), bool), groups, losses.DiceOptions(bound=form, num_groups=2),
        )  # fmt: skip
        plain = np.asarray(softmax(z)).reshape(2, -1, K).sum(1)
        found[form] = np.asarray(kept[1] / plain)[:, 1]  # the share of its probabilities that a sample keeps
    assert (
        found["released"][1] < 0.45 < 0.7 < found["released"][0]
    )  # the second group is taken for much worse
    assert 0.5 < found["present"][0] < found["present"][1] == pytest.approx(np.tanh(1.0))


def test_worse_groups_keep_less_and_gamma_says_how_much_less():
    spread = np.array([0.1, 0.2, 0.4, np.nan])
    groups = np.array([0, 1, 2, -1])
    kept = np.asarray(error_bounds.weights(spread, groups, 1.0))
    np.testing.assert_allclose(kept, np.tanh([1, 0.5, 0.25, 1]), rtol=1e-6)
    np.testing.assert_allclose(error_bounds.weights(spread, groups, 0.0), np.tanh(1.0), rtol=1e-6)
    assert (np.asarray(error_bounds.weights(spread, groups, 3.0))[1:3] < kept[1:3]).all()
    assert error_bounds.distinct(groups) == 3 and error_bounds.distinct(np.array([-1, -1])) == 0
    np.testing.assert_allclose(error_bounds.weights(np.full(2, 1e-6), np.array([0, 1]), 1.0), np.tanh(1.0))


def test_groups_that_are_all_alike_differ_from_the_plain_loss_by_the_best_groups_share_only():
    logits, labels, _ = case()
    twice = np.concatenate([logits[:2]] * 2), np.concatenate([labels[:2]] * 2)
    value, _ = compiled(losses.dice_ce, lambda_ce=0.0)(*twice, groups=np.array([0, 0, 1, 1], np.int32))
    unknown, _ = compiled(losses.dice_ce, lambda_ce=0.0)(*twice, groups=np.full(4, -1, np.int32))
    np.testing.assert_allclose(value, unknown, rtol=1e-6)


def test_channels_and_regions_are_bounded_too_and_cross_entropy_never():
    logits, labels, groups = case()
    targets = np.eye(K, dtype=bool)[np.clip(labels, 0, K - 1)] & (labels != 255)[..., None]
    one = losses.dice_bce(logits, targets, valid=labels != 255, groups=groups)
    np.testing.assert_allclose(losses.dice_bce_labels(logits, labels, groups=groups), one, rtol=1e-6)
    assert one != losses.dice_bce(logits, targets, valid=labels != 255)
    regions = losses.dice_bce_regions(logits[..., :2], labels, regions=((1, 2), (2,)), groups=groups)
    assert regions != losses.dice_bce_regions(logits[..., :2], labels, regions=((1, 2), (2,)))
    bare = [losses.dice_ce(logits, labels, lambda_dice=0.0, groups=g) for g in (groups, None)]
    assert bare[0] == bare[1]


def test_a_case_without_a_counted_class_takes_no_part():
    logits, labels, groups = case()
    labels[1:3] = 255  # all of group 1
    value, gradient = compiled(losses.dice_ce)(logits, labels, groups=groups)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert not np.any(gradient[1:3])


def test_what_does_not_fit_is_refused():
    logits, labels, groups = case()
    with pytest.raises(ValueError, match=r"groups have shape \(3,\), but there are 4 cases"):
        losses.dice_ce(logits, labels, groups=groups[:3])
    with pytest.raises(
        ConfigError, match=r"config.loss.bound: 'other' is unknown; choose one of present, released"
    ):
        losses.DiceOptions(bound="other")
    with pytest.raises(ConfigError, match=r"config.loss.gamma: -1 is not a number from 0 on"):
        losses.DiceOptions(gamma=-1)


def test_groups_are_compared_over_all_devices_that_share_a_batch():
    logits, labels, groups = case()
    mesh = sharding.make_mesh(data=4, fsdp=1, space=1, batch_size=4)
    there = sharding.shard_batch({"logits": logits, "labels": labels, "groups": groups}, mesh)
    assert len(there["groups"].sharding.device_set) == 4
    one = compiled(losses.dice_ce)(logits, labels, groups=groups)
    four = compiled(losses.dice_ce)(there["logits"], there["labels"], groups=there["groups"])
    np.testing.assert_allclose(four[0], one[0], rtol=1e-6)
    np.testing.assert_allclose(four[1], one[1], rtol=1e-5, atol=1e-8)
