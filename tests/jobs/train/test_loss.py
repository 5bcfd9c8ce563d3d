"""The loss that a recipe names."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs import common
from ukbob_jax import settings
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs.train import loss
from ukbob_jax.regions import Regions
from ukbob_jax.training import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(1, 2, 2, 2, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, (1, 2, 2, 2))
REGIONS = Regions(("WT", "TC"), ((1, 2), (1,)), (2, 1), {0: "background", 1: "core", 2: "edema"})


def recipe(**changes):
    return settings.with_fields(common.base().copy_and_resolve_references(), changes)


def data(counts=(1, 1, 1), regions=None):
    return SimpleNamespace(
        regions=regions, class_frequencies=lambda: np.array(counts, float), group_names=("F", "M")
    )


@pytest.mark.parametrize("name", losses.LABEL_LOSSES)
def test_a_loss_has_the_options_of_the_recipe(name):
    found = loss.class_loss(recipe(**{"loss.name": name, "loss.squared": True}), data())
    expected = losses.LABEL_LOSSES[name](LOGITS, LABELS, squared=True)
    assert found(LOGITS, LABELS) == expected != losses.LABEL_LOSSES[name](LOGITS, LABELS)


@pytest.mark.parametrize("balance, ratio", [(0.5, 2.0), (1.0, 4.0)])
def test_rare_classes_weigh_more_and_the_mean_voxel_weighs_one(balance, ratio):
    counts = np.array([800.0, 200.0])
    found = loss.class_loss(recipe(balance=balance), data(counts))
    weight = np.array(found.keywords["ce_weight"])
    np.testing.assert_allclose(weight[1] / weight[0], ratio, rtol=1e-4)  # (800 / 200) ** balance
    np.testing.assert_allclose(weight @ counts / counts.sum(), 1.0, rtol=1e-6)


def test_a_class_that_never_occurs_has_a_finite_weight():
    weight = loss.class_loss(recipe(balance=0.5), data((10, 0, 5))).keywords["ce_weight"]
    assert np.isfinite(weight).all() and np.argmax(weight) == 1


def test_groups_come_with_the_number_there_is_of_them():
    """Two groups exist and one is in the batch: in the released form it then has no Dice left to improve."""
    found = loss.class_loss(recipe(**{"loss.groups": "sex", "loss.bound": "released"}), data())
    expected = losses.dice_ce(LOGITS, LABELS, groups=np.array([1]), bound="released", num_groups=2)
    assert found(LOGITS, LABELS, groups=np.array([1])) == expected
    ours = loss.class_loss(recipe(**{"loss.groups": "sex", "loss.gamma": 3.0}), data())
    assert ours(LOGITS, LABELS, groups=np.array([1])) < expected - 0.1


def test_regions_are_learnt_by_their_masks():
    found = loss.class_loss(recipe(**{"loss.name": "dice_bce"}), data(regions=REGIONS))
    assert found(LOGITS[..., :2], LABELS) == losses.dice_bce_regions(
        LOGITS[..., :2], LABELS, regions=REGIONS.values
    )


def test_logits_of_several_sizes_weigh_half_from_one_to_the_next():
    config, strides = recipe(), ((1, 1, 1), (2, 2, 2))
    one = loss.class_loss(config, data())
    coarse, coarse_labels = LOGITS[:, :1, :1, :1], LABELS[:, 1:, 1:, 1:]  # the voxel beyond the common middle
    found = loss.label_loss(config, data(), strides)([LOGITS, coarse], LABELS)
    np.testing.assert_allclose(found, (2 * one(LOGITS, LABELS) + one(coarse, coarse_labels)) / 3, rtol=1e-6)
    assert loss.label_loss(config, data(), strides[:1])(LOGITS, LABELS) == one(LOGITS, LABELS)


def test_the_lowest_resolution_may_be_left_out():
    config, strides = recipe(**{"loss.lowest": False}), ((1, 1, 1), (2, 2, 2))
    found = loss.label_loss(config, data(), strides)([LOGITS, LOGITS[:, :1, :1, :1]], LABELS)
    assert found == loss.class_loss(config, data())(LOGITS, LABELS)


@pytest.mark.parametrize(
    "changes, regions, message",
    [
        (
            {"loss.name": "focal"},
            None,
            "config.loss.name: 'focal' is unknown; choose one of dice_ce, dice_bce",
        ),
        (
            {"loss.name": "dice_ce"},
            REGIONS,
            "'dice_ce' wants classes that exclude each other; regions: dice_bce",
        ),
        (
            {"loss.name": "dice_bce", "balance": 0.5},
            None,
            "config.balance: weighs cross entropy, which dice_bce",
        ),
        ({"loss.lambda_ce": -1.0}, None, "lambda_ce: -1.0 is not a number from 0 on"),
    ],
)
def test_losses_that_do_not_fit_are_refused(changes, regions, message):
    with pytest.raises(ConfigError, match=message):
        loss.class_loss(recipe(**changes), data(regions=regions))
