"""From a command line to a checked configuration and a workdir that is safe to write into."""

import argparse
import difflib
import importlib.util
import pathlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from ukbob_jax.errors import ConfigError
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Architecture

_PARSERS: dict[type, tuple[flags.ArgumentParser, str]] = {
    bool: (flags.BooleanParser(), "true or false"),
    int: (flags.IntegerParser(), "a whole number"),
    float: (flags.FloatParser(), "a number"),
}
_NEAR = 3  # fields that are offered for a misspelt one


def parse(argv: list[str], usage: str) -> tuple[ml_collections.ConfigDict, argparse.Namespace]:
    """Split `argv` into the recipe with its overrides and the program's own options.

    Raises:
        ConfigError: a flag, recipe, variant, field or value is wrong; the message says which.
    """
    parser = argparse.ArgumentParser(usage=usage, add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--workdir")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument(
        "--take-over", action="store_true", help="also if a run that is gone left its lock in the workdir"
    )
    parser.add_argument("--coordinator", help="HOST:PORT of process 0, or auto on a cluster")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    try:
        options, rest = parser.parse_known_args(argv)
    except (argparse.ArgumentError, SystemExit) as error:
        raise ConfigError(f"{error}. Usage: {usage}") from error
    if not options.workdir:
        raise ConfigError(
            f"--workdir=DIR is missing: the folder that receives everything the run writes. Usage: {usage}"
        )
    return read_recipe(rest, usage), options


def read_recipe(argv: list[str], usage: str) -> ml_collections.ConfigDict:
    """The configuration named by `--config=FILE.py[:VARIANT]` with its `--config.field=value` overrides."""
    path = next((word.split("=", 1)[1] for word in argv if word.startswith("--config=")), None)
    if path is None:
        raise ConfigError(f"--config=FILE.py[:VARIANT] is missing. Usage: {usage}")
    config, defaults = (with_network(load_recipe(path), argv) for _ in range(2))
    check_overrides(argv, defaults, path)
    argv = [word for word in argv if not word.startswith("--config=")]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["ukbob", *argv])
    try:
        unknown = values(["ukbob", *argv])[1:]
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if unknown:
        raise ConfigError(f"unexpected argument {unknown[0]!r}: settings are given as --config.name=value.")
    check_sequences(values.config, defaults, path)
    return values.config


def load_recipe(path: str) -> ml_collections.ConfigDict:
    """The configuration of `FILE.py[:VARIANT]` without overrides.

    Raises:
        ConfigError: no such file or variant, no Python file, or one that fails; absl's own answer is longer.
    """
    file, _, variant = path.partition(":")
    recipe = run_recipe(pathlib.Path(file))
    variants = getattr(recipe, "VARIANTS", {})
    if variant and variant not in variants:
        raise ConfigError(f"{file}: no variant {variant!r}; there are {', '.join(variants) or 'none'}.")
    if not callable(getattr(recipe, "get_config", None)):
        raise ConfigError(f"{file}: has no function get_config, so it is no recipe. See configs/common.py.")
    try:
        config = recipe.get_config(*([variant] if variant else []))
    except Exception as error:
        raise ConfigError(f"{file}: get_config fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"{file}: get_config returns {type(config).__name__}, not a ConfigDict.")
    return config


def with_network(config: ml_collections.ConfigDict, argv: list[str]) -> ml_collections.ConfigDict:
    """`config`, with the section of the network that `--config.model.name=NAME` asks for if the recipe has another.

    What the two sections share and mean alike, such as channels, classes and precision, keeps the recipe's values. A module
    path is imported here, so that checkpoints which name it can be read.

    Raises:
        ConfigError: there is no such network.
    """
    flag = "--config.model.name="
    model: Any = config.get("model", ml_collections.ConfigDict())
    said = str(model.get("name", ""))
    name = next((word.removeprefix(flag) for word in reversed(argv) if word.startswith(flag)), said)
    if not said or (name == said and "." not in name):
        return config
    found = find_network(name)
    if name == said:
        return config
    section = network_section(found)
    shared = {field: model[field] for field in found.free if field in model}
    # A number of supervised steps says nothing to a network that has a switch for all: it keeps its own.
    section.update(
        {field: value for field, value in shared.items() if type(section.get(field)) is type(value)}
    )
    with config.unlocked():
        del config.model
        config.model = section
    return config


def find_network(name: str) -> Architecture:
    """The architecture called `name`, as the field `config.model.name`.

    Raises:
        ConfigError: there is none.
    """
    try:
        return architecture.find(name)
    except ConfigError as error:
        raise ConfigError(f"config.model.name: {error}") from error


def network_section(network: Architecture) -> ml_collections.ConfigDict:
    """The section `config.model` of a network: from `configs/networks.py`, or else its own defaults."""
    sections = sys.modules.get("configs.networks")  # imported by the recipes that share `configs/common.py`
    if function := getattr(sections, network.name, None):
        return function()
    values = network.fields(network.build({"in_channels": 1, "out_channels": 1}))
    own = {name: architecture.tuples(value) for name, value in values.items()}
    return ml_collections.ConfigDict({"name": network.name, **own})


def run_recipe(file: pathlib.Path) -> ModuleType:
    """The module of one recipe file.

    Raises:
        ConfigError: it does not exist, is no Python file, or cannot be run.
    """
    root = str(file.resolve().parents[1]) if len(file.resolve().parents) > 1 else str(file.resolve().parent)
    if root not in sys.path:  # recipes share `from configs import common`
        sys.path.insert(0, root)
    if not file.is_file():
        recipes = sorted(map(str, (file if file.is_dir() else file.parent).glob("*.py")))
        hint = f"There are {', '.join(recipes)}" if recipes else "Give a path to one"
        reason = "a folder, not a recipe" if file.is_dir() else "no such recipe"
        raise ConfigError(f"{file}: {reason}. {hint}.")
    spec = importlib.util.spec_from_file_location("ukbob_recipe", file)
    if spec is None or spec.loader is None:
        raise ConfigError(
            f"{file}: not a Python file. A recipe is a file NAME.py with a function get_config."
        )
    recipe = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(recipe)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{file}: cannot be run as Python: {type(error).__name__}: {error}") from error
    return recipe


def fields(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field, in alphabetical order; an empty section counts as a field."""
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict) and len(value):
            yield from fields(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_overrides(argv: list[str], config: ml_collections.ConfigDict, recipe: str) -> None:
    """Compare every `--config.FIELD=VALUE` of `argv` with the fields of `config`, the recipe's own values.

    Raises:
        ConfigError: the recipe has no such field, or the text cannot be read as a value of the field's type.
    """
    known = dict(fields(config))
    for word in argv:
        if not word.startswith("--config."):
            continue
        name, equals, text = word.removeprefix("--config.").partition("=")
        if name.partition("[")[0] not in known:
            raise ConfigError(_unknown_field(name, list(known), recipe))
        parser, expected = _PARSERS.get(type(known.get(name)), (None, ""))
        if parser is None or not equals:
            continue
        try:
            parser.parse(text)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"config.{name}: {text!r} is not {expected}; {recipe} has {known[name]}."
            ) from error


def check_sequences(
    config: ml_collections.ConfigDict, defaults: ml_collections.ConfigDict, recipe: str
) -> None:
    """Refuse a sequence whose elements are of another type than those of the recipe, such as `crop=(96,"a",96)`.

    Raises:
        ConfigError: an element is of another type; a whole number may stand for any number.
    """
    known = dict(fields(defaults))
    for name, value in fields(config):
        if not isinstance(value, tuple | list) or not known.get(name):
            continue
        kinds = {type(element) for element in known[name]} | (
            {int} if isinstance(known[name][0], float) else set()
        )
        wrong = [element for element in value if type(element) not in kinds]
        if wrong:
            expected = " or ".join(sorted(kind.__name__ for kind in kinds))
            raise ConfigError(f"config.{name}: {wrong[0]!r} is not {expected}; {recipe} has {known[name]}.")


def _unknown_field(name: str, known: list[str], recipe: str) -> str:
    """One line: the field, what is wrong with it, and the fields that may have been meant."""
    if inside := [field for field in known if field.startswith(f"{name}.")]:
        return f"config.{name}: a section of {recipe}; set one of its fields: {', '.join(inside)}."
    section, _, last = name.rpartition(".")
    near = [field for field in known if field.rpartition(".")[2] == last]
    near += difflib.get_close_matches(name, known, _NEAR)
    if near:
        hint = f"Did you mean {', '.join(dict.fromkeys(near[:_NEAR]))}?"
    elif siblings := [field for field in known if section and field.startswith(f"{section}.")]:
        hint = f"That section has {', '.join(siblings)}."
    else:
        hint = f"It has {', '.join(dict.fromkeys(field.partition('.')[0] for field in known))}."
    return f"config.{name}: {recipe} has no such field. {hint}"


def resolve(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Replace `{workdir}` in every text field by the workdir's path."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        _expand(config, str(workdir))
    return config.lock()


def _expand(config: ml_collections.ConfigDict, workdir: str) -> None:
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            _expand(value, workdir)
        elif isinstance(value, str):
            config[key] = value.replace("{workdir}", workdir)


def with_fields(config: ml_collections.ConfigDict, values: Mapping[str, object]) -> ml_collections.ConfigDict:
    """Return a copy of `config` with some fields, named by their dotted paths, set to other values.

    Raises:
        ConfigError: there is no such field.
    """
    copy = ml_collections.ConfigDict(config.to_dict())
    for path, value in values.items():
        *sections, field = path.split(".")
        section: Any = copy
        for name in sections:
            section = section.get(name, {})
        if field not in section:
            raise ConfigError(f"config.{path}: no such field.")
        section[field] = ml_collections.ConfigDict(value) if isinstance(value, dict) else value
    return copy


def prepare_workdir(workdir: str, job: tuple[str, ...]) -> pathlib.Path:
    """Make the workdir, refusing a folder with content that no run of ours has made.

    Raises:
        ConfigError: the folder holds foreign files, or cannot be written.
    """
    path = pathlib.Path(workdir)
    marker = path / ".ukbob"
    try:
        path.mkdir(parents=True, exist_ok=True)
        # In this order: another process of the same run may write the marker, always its first file, in between.
        if any(path.iterdir()) and not marker.exists():
            raise ConfigError(
                f"{workdir}: not empty and not a workdir of a former run. Choose another --workdir."
            )
        marker.write_text(",".join(job) + "\n")
    except OSError as error:
        raise ConfigError(
            f"{workdir}: cannot be used as workdir: {error.strerror}. Choose another --workdir."
        ) from error
    return path.resolve()
