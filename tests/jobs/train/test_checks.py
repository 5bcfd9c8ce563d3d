"""What a training's configuration may say; each refusal names its field."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs import common
from ukbob_jax import settings
from ukbob_jax.errors import ConfigError
from ukbob_jax.jobs.train import checks
from ukbob_jax.training import recipes

DATA = SimpleNamespace(
    label="manual", contrasts=("a", "b", "c", "d"), regions=None, lookup=None, num_classes=73,
    largest_label=lambda: ("s7", 72),
)  # fmt: skip


def recipe(**changes):
    return settings.with_fields(common.base().copy_and_resolve_references(), changes)


def test_the_recipe_of_all_recipes_passes():
    recipes.numbers(recipe())
    checks.network(recipe(), DATA)


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"train.steps": 0}, "config.train.steps: 0 is less than 1"),
        ({"train.stop_after_nonfinite": 0}, "config.train.stop_after_nonfinite: 0 is less than 1"),
        ({"mesh.fsdp": 0}, "config.mesh.fsdp: 0 is less than 1"),
        ({"epochs.crops": 0}, "config.epochs.crops: 0 is less than 1"),
        ({"epochs.warmup": -1}, "config.epochs.warmup: -1 is less than 0"),
        ({"data.crop": (8, 0, 8)}, "config.data.crop: .* is not three numbers"),
        ({"train.accumulate": 0}, "config.train.accumulate: 0 does not divide"),
        ({"train.ema": -0.1}, "config.train.ema: -0.1 is not in"),
        ({"mesh.space": 5}, "96 voxels along x do not divide over mesh.space 5"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused_by_field(changes, named):
    with pytest.raises(ConfigError, match=named):
        recipes.numbers(recipe(**changes))


@pytest.mark.parametrize(
    "of_data, named",
    [
        ({"label": ""}, "config.label: empty"),
        ({"contrasts": ("a",)}, r"config.model.in_channels is 4, but the store has 1 contrasts \(a\)"),
        (
            {"largest_label": lambda: ("s7", 73)},
            "s7: label 73 needs config.model.out_channels of at least 74",
        ),
        ({"regions": "three", "num_classes": 3}, "config.model.out_channels is 73, but there are 3 regions"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(of_data, named):
    with pytest.raises(ConfigError, match=named):
        checks.network(recipe(), SimpleNamespace(**{**vars(DATA), **of_data}))


def test_stored_ids_do_not_matter_where_a_lookup_maps_them():
    checks.network(recipe(), SimpleNamespace(**{**vars(DATA), "lookup": "any", "largest_label": None}))


def held_out(present, **changes):
    """Data with one subject that validates."""
    same = {"val_lookup": np.arange(256, dtype=np.uint8), "num_classes": 4, "regions": None, **changes}
    return SimpleNamespace(
        store=SimpleNamespace(present=lambda subject, name: present), held_out=("val0",), **same
    )


def test_held_out_subjects_that_a_validation_can_read_pass():
    checks.validation(recipe(), held_out((1, 3)))
    lookup = np.zeros(256, np.uint8)
    lookup[[6, 9]] = 2, 255  # mapped, and not annotated
    checks.validation(recipe(), held_out((6, 9, 200), val_lookup=lookup))
    checks.validation(recipe(), held_out((4,), regions="three"))


def test_a_held_out_subject_with_a_foreign_label_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"config\.data\.val_label: val0 .* label 4 in 'manual', .* the 4 classes .*out_channels=6\.$",
    ):
        checks.validation(recipe(**{"data.val_label": "manual"}), held_out((1, 4, 5)))


@pytest.mark.parametrize(
    "attention, count, platform, refused",
    [("fused", 2, "gpu", True), ("fused", 1, "gpu", False), ("fused", 8, "cpu", False), ("plain", 2, "gpu", False)],
)  # fmt: skip
def test_fused_attention_is_for_one_gpu(attention, count, platform, refused):
    config = recipe(**{"model.attention": attention})
    mesh = SimpleNamespace(size=count, devices=np.array([SimpleNamespace(platform=platform)] * count))
    if not refused:
        return recipes.devices(config, mesh)
    with pytest.raises(
        ConfigError, match=r"config\.model\.attention: 'fused' is for one GPU, the mesh has 2"
    ):
        recipes.devices(config, mesh)
