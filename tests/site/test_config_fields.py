"""The reference of fields: each has a meaning, and defaults and units are the recipes'."""

import pytest

from configs import common
from tools.site import comments, config_fields, recipes
from ukbob_jax import settings

MARKS = (
    "ours",
    "paper",
    "paper; ours",
    "released script",
)  # where a number is from says nothing of what it does
MADE = [(name, variant) for name, module in config_fields.recipes().items() for variant in module.VARIANTS]


@pytest.mark.parametrize("name, variant", MADE, ids=lambda word: word)
def test_every_field_of_every_recipe_says_what_it_means(name, variant):
    config = config_fields.recipes()[name].get_config(variant)
    found = {field.name: field for field in config_fields.fields(config, name)}
    assert set(found) == {field for field, _ in settings.fields(config)}
    silent = [field.name for field in found.values() if field.meaning in ("", *MARKS)]
    assert not silent, f"configs/{name}.py: write a comment beside {', '.join(silent)}"


def test_meaning_unit_and_default_are_the_codes():
    found = {f.name: f for f in config_fields.fields(common.base(), "common")}
    assert found["solf.epsilon"] == (
        "solf.epsilon",
        "number",
        "percent",
        "2.0",
        "percent cut off at either end; the paper's best",
    )
    assert found["etta.steps"].meaning == "updates, each over the whole scan."  # of the class of options
    assert (
        found["model.window_size"].meaning == "tokens, x y z" and found["model.window_size"].unit == "tokens"
    )
    assert found["evaluate.tolerance_mm"].unit == "mm" and found["train.steps"].unit == "steps"
    assert found["labeller.timeout_s"].unit == "s" and found["data.crop"].unit == "voxels"
    assert found["train.best"].meaning.startswith("number of the validation")  # a comment above


def test_a_comment_is_found_within_beside_and_above():
    source = """
def f(config):
    config.a = 1  # one
    # two
    config.b.c = (
        2
    )
    config.d = (
        "x"  # in
    )
    config.e = 3
"""
    found = [(entry.function, entry.name, entry.comment) for entry in comments.assigned(source)]
    assert found == [("f", "a", "one"), ("f", "b.c", "two"), ("f", "d", "in"), ("f", "e", "")]


def test_what_a_recipe_says_of_its_own_value_stands_behind_what_all_say():
    config = config_fields.recipes()["swin_bob"].get_config()
    found = {field.name: field.meaning for field in config_fields.fields(config, "swin_bob")}
    assert found["loss.name"].startswith("released script") and "; here paper" in found["loss.name"]
    assert "here" not in found["train.keep"]


def test_recipes_show_what_they_change():
    page = recipes.each()
    section = page.split("## solf.py", 1)[1].split("\n## ", 1)[0]
    assert "`config.job`" in section and "config.solf.epsilon" not in section  # the shared default
    assert "### sentinel.py:slices" in page and "`config.model.width`" in page
