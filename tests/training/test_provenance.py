"""What a resumed run may change and what not, over every field of every recipe."""

import importlib
import json
import pathlib
from typing import Any

import pytest

import configs
from configs import common
from ukbob_jax.errors import ConfigError
from ukbob_jax.training import provenance

RECIPES = [
    (path.stem, variant)
    for path in sorted(pathlib.Path(configs.__path__[0]).glob("*.py"))
    if path.stem not in ("common", "networks", "__init__")
    for variant in importlib.import_module(f"configs.{path.stem}").VARIANTS
]
BOUND_BEFORE = (
    *("seed", "splits", "folds", "fold", "data", "model", "init", "init_new", "regions", "loss", "balance"),
    *("augment", "optimizer", "train"),
)
FREE_BEFORE = (
    *(
        "data.store",
        "data.threads",
        "data.workers",
        "data.cache_gb",
        "data.val_split",
        "data.val_label",
        *("model.remat", "model.attention"),
    ),
    *("data.damaged", "train.steps", "train.log_every", "train.eval_every", "train.checkpoint_every"),
    *("train.stop_after_nonfinite", "train.keep", "train.best"),
)
FREE_OF_GRADERS = {
    f"sentinel.{name}"
    for name in ("val_pairs", "coverage", "recall", "grader", "decisions", "process", "processes")
}
BY_FINGERPRINT = {"data.flagged_by", "data.grades"}  # newer; what they choose changes the data's fingerprint


def leaves(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in leaves(f"{name}.{key}", part).items()}
    return {name: value}


def without_format(config: dict[str, Any], data: str) -> dict[str, Any]:
    """A recipe as it was recorded when only listed sections counted."""
    flat = {k: v for section in BOUND_BEFORE for k, v in leaves(section, config.get(section)).items()}
    flat["data.fingerprint"] = data
    return json.loads(json.dumps({name: value for name, value in flat.items() if name not in FREE_BEFORE}))


def change(config: dict[str, Any], name: str, value: Any = "another value") -> dict[str, Any]:
    """A copy with one field, which may be new, set to another value."""
    copy = json.loads(json.dumps(config))
    *sections, field = name.split(".")
    here = copy
    for section in sections:
        here = here.setdefault(section, {})
    here[field] = value
    return copy


def recipes() -> list[dict[str, Any]]:
    modules = ((importlib.import_module(f"configs.{name}"), variant) for name, variant in RECIPES)
    return [module.get_config(variant).copy_and_resolve_references().to_dict() for module, variant in modules]


def resume(saved: dict[str, Any], config: dict[str, Any], data: str = "1234") -> None:
    provenance.check_resume(saved, provenance.recipe(config, data), "runs/one")


def test_every_field_of_every_recipe_binds_or_is_free():
    for config in recipes():
        saved = provenance.recipe(config, "1234")
        resume(json.loads(json.dumps(saved)), config)
        fields = [name for section in config for name in leaves(section, config[section])]
        refused = set()
        for name in fields:
            try:
                resume(saved, change(config, name))
            except ConfigError as error:
                assert f"{name} was " in str(error)
                refused.add(name)
        before = {*without_format(config, "1234")} - {"data.fingerprint"} - BY_FINGERPRINT
        own = {name for name in fields if name.startswith(("pretrain.", "sentinel."))} - FREE_OF_GRADERS
        assert refused == before | {"label"} | own


@pytest.mark.parametrize(
    "name", ["pretrain.views", "objective", "data.views", "train.patience", "optimizer.b3", "fold_of"]
)
def test_a_field_that_nobody_has_listed_binds(name):
    config = common.base().copy_and_resolve_references().to_dict()
    two = change(config, name, 2)
    resume(provenance.recipe(two, "1234"), two)
    with pytest.raises(ConfigError, match=f"{name} was 2, is 3"):
        resume(provenance.recipe(two, "1234"), change(config, name, 3))
    with pytest.raises(ConfigError, match=f"{name} was None, is 2"):
        resume(provenance.recipe(config, "1234"), two)
    resume(provenance.recipe(config, "1234"), change(config, name, 0))  # off: as if it were not there


@pytest.mark.parametrize("name", provenance.FREE)
def test_what_is_free_may_change_or_be_new(name):
    config = common.base().copy_and_resolve_references().to_dict()
    resume(provenance.recipe(config, "1234"), change(config, name, 12345))
    resume(provenance.recipe(change(config, name, 12345), "1234"), config)
    resume(without_format(config, "1234"), change(config, name, 12345))


def test_other_data_are_refused():
    config = common.base().copy_and_resolve_references().to_dict()
    for saved in (provenance.recipe(config, "1234"), without_format(config, "1234")):
        with pytest.raises(ConfigError, match=r"data\.fingerprint was '1234', is '5678'"):
            resume(saved, config, data="5678")


def test_runs_whose_recipe_has_no_format_go_on_and_are_held_to_what_it_says():
    for config in recipes():
        saved = without_format(config, "1234")
        resume(saved, config)
        resume(saved, change(config, "pretrain.views", 2))  # it never said anything about such sections
        for name in ("seed", "data.crop", "optimizer.learning_rate", "data.new_option"):
            with pytest.raises(ConfigError, match=f"runs/one: .*{name} was "):
                resume(saved, change(config, name))
