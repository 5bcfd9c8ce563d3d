"""From a command line to a checked configuration and a workdir that is safe to write into."""

import argparse
import importlib.util
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from ukbob_jax.errors import ConfigError

Config = Any  # an ml_collections.ConfigDict, whose fields have no types


def parse(argv: list[str], usage: str) -> tuple[ml_collections.ConfigDict, argparse.Namespace]:
    """Split `argv` into the recipe with its overrides and the program's own options.

    Raises:
        ConfigError: a flag, recipe, variant, field or value is wrong; the message says which.
    """
    parser = argparse.ArgumentParser(usage=usage, add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--workdir")
    parser.add_argument("--debug", action="store_true")
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
    check_recipe(path)
    argv = sorted(argv, key=lambda word: not word.startswith("--config="))  # overrides must follow the recipe
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["ukbob", *argv], lock_config=True)
    try:
        unknown = values(["ukbob", *argv])[1:]
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if unknown:
        raise ConfigError(f"unexpected argument {unknown[0]!r}: settings are given as --config.name=value.")
    return values.config


def check_recipe(path: str) -> None:
    """Refuse a missing recipe or variant with the ones there are, before absl's longer answer."""
    file, _, variant = path.partition(":")
    root = str(pathlib.Path(file).resolve().parents[1])  # recipes share `from configs import common`
    if root not in sys.path:
        sys.path.insert(0, root)
    if not pathlib.Path(file).is_file():
        near = sorted(str(recipe) for recipe in pathlib.Path(file).parent.glob("*.py"))
        raise ConfigError(
            f"{file}: no such recipe. {'There are ' + ', '.join(near) if near else 'Give a path to one'}."
        )
    spec = importlib.util.spec_from_file_location("ukbob_recipe", file)
    recipe = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(recipe)
    except Exception as error:
        raise ConfigError(f"{file}: cannot be run as Python: {type(error).__name__}: {error}") from error
    variants = getattr(recipe, "VARIANTS", {})
    if variant and variant not in variants:
        raise ConfigError(f"{file}: no variant {variant!r}; there are {', '.join(variants) or 'none'}.")


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
        if not marker.exists() and any(path.iterdir()):
            raise ConfigError(
                f"{workdir}: not empty and not a workdir of a former run. Choose another --workdir."
            )
        marker.write_text(",".join(job) + "\n")
    except OSError as error:
        raise ConfigError(
            f"{workdir}: cannot be used as workdir: {error.strerror}. Choose another --workdir."
        ) from error
    return path.resolve()
