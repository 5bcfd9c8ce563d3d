"""Recipes and their overrides: what is refused, and what the one line says about it."""

import pathlib

import pytest

from configs import finetune
from tests.conftest import ROOT
from ukbob_jax import settings
from ukbob_jax.errors import ConfigError

RECIPE = f"{ROOT}/configs/swin_bob.py"


def read(*words: str):
    return settings.read_recipe([f"--config={RECIPE}", *words], usage="USAGE")


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as error:
        read(*words)
    message = str(error.value)
    assert "\n" not in message and RECIPE in message
    return message


@pytest.mark.parametrize(
    "word, near",
    [
        ("--config.etta.learning_rat=0.2", "Did you mean etta.learning_rate"),
        ("--config.train.stepz=4", "Did you mean train.steps"),
        (
            "--config.learning_rate=1",
            "etta.learning_rate, optimizer.learning_rate, tent",
        ),  # the right field, no section
        ("--config.etta.learning_rate.x=1", "Did you mean etta.learning_rate"),
        ("--config.tent.zzzz=1", "That section has tent.batch"),
        ("--config.zzzz=1", "It has agreement, audit, augment"),
        ("--config.zzzz 1", "It has agreement, audit, augment"),
    ],
)
def test_an_unknown_field_is_named_with_the_fields_nearest_to_it(word, near):
    message = refusal(*word.split())
    name = word.replace("=", " ").split()[0].removeprefix("--")
    assert message.startswith(f"{name}: {RECIPE} has no such field. ") and near in message


def test_a_section_is_no_field():
    assert "a section" in (message := refusal("--config.tent=3")) and "tent.learning_rate" in message


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("train.steps", "many", "a whole number"),
        ("seed", "1.5", "a whole number"),
        ("train.steps", "", "a whole number"),
        ("etta.learning_rate", "fast", "a number"),
        ("model.remat", "maybe", "true or false"),
        ("data.crop", "(96,'a',96)", "int"),
        ("data.crop", "abc", "int"),
        ("augment", "(1,)", "str"),
    ],
)
def test_a_value_of_another_type_is_named_with_the_type_expected(field, value, expected):
    message = refusal(f"--config.{field}={value}")
    assert message.startswith(f"config.{field}: ") and f"is not {expected};" in message
    assert value in message or field in ("data.crop", "augment")  # of a sequence, its wrong element is named


def test_values_of_the_right_type_are_set():
    config = read(
        "--config.train.steps=7", "--config.etta.learning_rate=1", "--config.model.remat",
        "--config.data.crop=(64,64,32)", "--config.data.organs=('liver',)", "--config.loss.name=dice_ce",
        "--config.etta.steps", "4",
    )  # fmt: skip
    assert (config.train.steps, config.etta.learning_rate, config.model.remat) == (7, 1.0, True)
    assert (config.data.crop, config.data.organs, config.loss.name) == ((64, 64, 32), ("liver",), "dice_ce")
    assert config.etta.steps == 4


def test_whole_numbers_may_stand_for_numbers_in_a_sequence(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(
        "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({'mm': (1.5, 2.0)})\n"
    )
    config = settings.read_recipe([f"--config={path}", "--config.mm=(1, 2)"], usage="")
    assert config.mm == (1, 2)


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("recipe.txt", "job = 1", "not a Python file"),
        ("broken.py", "x = (", "cannot be run as Python: SyntaxError"),
        ("failing.py", "1 / 0", "cannot be run as Python: ZeroDivisionError"),
        ("ending.py", "raise SystemExit(3)", "cannot be run as Python: SystemExit"),
        ("empty.py", "", "has no function get_config"),
        ("later.py", "def get_config(): return 1 / 0", "get_config fails: ZeroDivisionError"),
        ("other.py", "def get_config(): return 3", "get_config returns int"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, name, text, reason):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason) as error:
        settings.read_recipe([f"--config={path}"], usage="")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_folder_is_refused_with_the_recipes_in_it():
    with pytest.raises(ConfigError, match=r"a folder, not a recipe\. There are .*swin_bob\.py"):
        settings.read_recipe([f"--config={ROOT / 'configs'}"], usage="")
    with pytest.raises(ConfigError, match="no such recipe"):
        settings.read_recipe([f"--config={pathlib.Path('/nowhere.py')}"], usage="")


def test_fields_are_named_in_full():
    names = [name for name, _ in settings.fields(settings.load_recipe(RECIPE))]
    assert {"seed", "data.crop", "evaluate.tolerances_mm"} <= set(names) and "data" not in names
    assert len(set(names)) == len(names)


def test_a_network_of_another_name_brings_its_own_section():
    config = read("--config.model.name=tests.tiny_network", "--config.model.width=6")
    assert config.model.to_dict() == {
        "name": "tests.tiny_network", "in_channels": 4, "out_channels": 73, "width": 6, "shake_rate": 0.0,
        "deep_supervision": 0, "dtype": "float32",
    }  # fmt: skip
    same = read("--config.model.name=swin_unetr", "--config.model.feature_size=24")
    assert same.model.feature_size == 24 and same.model.norm == "instance_affine"
    with pytest.raises(
        ConfigError, match=r"^config.model.name: network 'unet' is unknown: there are .*swin_unetr"
    ):
        read("--config.model.name=unet")
    assert "has no such field" in refusal("--config.model.name=tests.tiny_network", "--config.model.depths=3")


@pytest.mark.parametrize(
    "recipe", ["finetune", "amos", "brats", "btcv", "hippocampus", "hippocampus:msd", "inspect"]
)
def test_every_recipe_of_files_takes_what_messages_about_files_advise(recipe):
    name, _, variant = recipe.partition(":")
    path = f"{ROOT}/configs/{name}.py" + (f":{variant}" if variant else "")
    words = [
        f"--config.source.{field}"
        for field in ("nan=zero", "constant=accept", "mask_value=255", "label_table=t")
    ]
    source = settings.read_recipe([f"--config={path}", *words], usage="").source
    assert (source.nan, source.constant, source.mask_value, source.label_table) == (
        "zero",
        "accept",
        255,
        "t",
    )


def test_scans_to_predict_may_be_others_than_those_to_learn_from():
    config = finetune.get_config()
    config.source.paths.images = "mine"
    assert config.predict.inputs == "mine"
    config.predict.inputs = "new"
    assert config.source.paths.images == "mine"


def test_several_processes_may_make_one_workdir_at_once(tmp_path, monkeypatch):
    """Another one is quicker: its marker appears while this one looks at what is there."""
    listed = pathlib.Path.iterdir

    def late(self):
        marker_of_another.write_text("train\n")
        return listed(self)

    marker_of_another = tmp_path / ".ukbob"
    monkeypatch.setattr(pathlib.Path, "iterdir", late)
    assert settings.prepare_workdir(str(tmp_path), ("train",)) == tmp_path.resolve()
