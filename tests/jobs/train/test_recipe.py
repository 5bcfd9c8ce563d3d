"""What a resumed training must repeat, in the words of the trainings that are under way."""

from types import SimpleNamespace

import pytest

from configs import btcv, common
from ukbob_jax import settings
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs.train import recipe
from ukbob_jax.training import provenance, recipes

DATA = SimpleNamespace(label="auto", fingerprint=lambda: "0123456789ab")
# As a training recorded it before the loss had options and the optimizer all its fields.
EARLIER = {
    "seed": 0, "splits": "", "folds": 0, "fold": 0, "data.label": "auto", "data.train_split": "train",
    "data.organs": [], "data.crop": [96, 96, 96], "data.batch_size": 8, "data.foreground": 0.67,
    "data.normalize": "zscore", "data.contrasts": [], "data.flagged": "ignore", "data.verdicts": "",
    "model.in_channels": 4, "model.out_channels": 73, "model.feature_size": 48, "model.depths": [2, 2, 2, 2],
    "model.num_heads": [3, 6, 12, 24], "model.window_size": [7, 7, 7], "model.norm": "instance_affine",
    "model.downsample": "merging", "model.use_v2": False, "model.dropout_path_rate": 0.0, "model.deep_supervision": 0,
    "model.dtype": "float32", "init": "", "init_new": [], "regions": "", "loss": "dice_ce", "balance": 0.0,
    "augment": ["gamma", "intensity", "noise", "bias_field"], "optimizer.learning_rate": 1e-4,
    "optimizer.warmup_steps": 500, "optimizer.weight_decay": 1e-5, "optimizer.clip_norm": 1.0,
    "optimizer.layer_decay": 1.0, "optimizer.frozen": "", "optimizer.trainable": "", "train.accumulate": 1,
    "train.ema": 0.0, "data.fingerprint": "0123456789ab",
}  # fmt: skip


def check(saved, **changes):
    config = settings.with_fields(common.base().copy_and_resolve_references(), changes)
    provenance.check_resume(saved, recipe.binding(config, DATA), "runs")


def test_a_training_from_before_the_loss_had_options_goes_on():
    check(EARLIER)
    check({**EARLIER, "loss": "dice_bce"}, **{"loss.name": "dice_bce"})


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"loss.name": "dice_bce"}, "loss was 'dice_ce', is 'dice_bce'"),
        ({"loss.squared": True}, "loss.squared was None, is 'True'"),
        ({"loss.include_background": False, "loss.lambda_ce": 2.0}, "loss.lambda_ce was None, is '2.0'"),
        ({"optimizer.schedule": "constant"}, "optimizer.schedule was None, is 'constant'"),
        ({"optimizer.b2": 0.99}, "optimizer.b2 was None, is '0.99'"),
        ({"data.names": "btcv"}, "data.names was None, is 'btcv'"),
    ],
)
def test_another_loss_or_optimizer_is_refused_by_field(changes, named):
    with pytest.raises(ConfigError, match=named):
        check(EARLIER, **changes)


def test_an_option_that_is_off_and_was_not_known_binds_too():
    """`check_resume` takes a field that is off for one that did not exist; these were on."""
    with pytest.raises(ConfigError, match=r"loss.include_background was None, is 'False'"):
        check(EARLIER, **{"loss.include_background": False})
    with pytest.raises(ConfigError, match=r"loss.lambda_dice was None, is '0.0'"):
        check(EARLIER, **{"loss.lambda_dice": 0.0})
    without = settings.with_fields(
        common.base().copy_and_resolve_references(), {"loss.include_background": False}
    )
    with pytest.raises(ConfigError, match=r"loss.include_background was 'False', is None"):
        check(recipe.binding(without, DATA))


def test_another_label_set_is_refused():
    config = common.base().copy_and_resolve_references()
    other = SimpleNamespace(label="manual", fingerprint=DATA.fingerprint)
    with pytest.raises(ConfigError, match=r"data.label was 'auto', is 'manual'"):
        provenance.check_resume(EARLIER, recipe.binding(config, other), "runs")


def test_epochs_become_steps():
    config = btcv.get_config()
    data = SimpleNamespace(subjects=range(24), contrasts=("ct",), num_classes=14)
    resolved = recipe.resolve(config, data)
    assert resolved.train.steps == 500 * 24 * 4 // 8 and resolved.optimizer.warmup_steps == 50 * 24 * 4 // 8


def test_what_a_recipe_leaves_to_the_data_is_filled_in_and_the_rest_kept():
    data = SimpleNamespace(subjects=range(5), contrasts=("fat", "water"), num_classes=9)
    changes = {"model.in_channels": 0, "model.out_channels": 0, "epochs.total": 0, "train.steps": 77}
    config = settings.with_fields(common.base().copy_and_resolve_references(), changes)
    found = recipe.resolve(config, data)
    assert (found.model.in_channels, found.model.out_channels, found.train.steps) == (2, 9, 77)
    assert config.model.in_channels == 0  # the given recipe stays as it is
    assert recipe.resolve(found, data).to_dict() == found.to_dict()


def test_a_warm_up_ends_before_the_training():
    config = btcv.get_config()
    config.epochs.warmup = 2 * config.epochs.total
    data = SimpleNamespace(subjects=range(2), contrasts=("ct",), num_classes=14)
    found = recipe.resolve(config, data)
    assert found.optimizer.warmup_steps == found.train.steps - 1


def test_a_schedule_has_the_recipes_fields_and_refuses_what_it_cannot_use():
    changes = {"train.steps": 40, "train.log_every": 3}
    config = settings.with_fields(common.base().copy_and_resolve_references(), changes)
    found = recipes.schedule(config)
    assert (found.steps, found.log_every) == (40, 3) and found.keep == config.train.keep
    with pytest.raises(ConfigError, match="keep"):
        recipes.schedule(settings.with_fields(config, {"train.keep": 0}))
