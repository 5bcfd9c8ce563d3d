"""Every option and field that a message names is one of the program that prints it."""

import argparse
import ast
import importlib
import pathlib
import re
from collections.abc import Iterator

import pytest

from configs import networks
from tests.conftest import ROOT
from tests.test_layers import FILES, dotted, imports
from ukbob_jax import cli, settings
from ukbob_jax.models import architecture

WORD = re.compile(r"--[a-z][\w.{}-]*|\bconfig\.[a-z{][\w.{}]*")
NOT_FIELDS = ("config.json", "--config.FIELD", "--config.name", "config.{}.{}")  # a file, and placeholders
# Modules that `ukbob` imports whose messages name fields all the same, and why no command gets to print them.
ONLY_MAIN = {
    "mirroring": "needs sides where training augments",
    "devices": "commands use its cache alone",
    "inference.options": "reads the section of a recipe",
    "models.architecture": "names the program beside the field",
    "quality.cohort": "measures the subjects of a store",
    "quality.verdicts": "frd takes its folder alone",
    "sentinel.trained": "no command sets a guard of grades",
    "regions": "numberings are chosen by a recipe",
    "sources": "check passes a kind and fields that there are",
    "splits": "check draws none",
    "store.reader": "names the job that mends a store, whoever reads it",
    "cluster": "export2d gives no address",
}


def texts(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string that is no docstring and no option being declared; `{}` where a value stands."""
    tree = ast.parse(path.read_text())
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            skipped |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(inner) for inner in node.values if isinstance(inner, ast.Constant)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(map(str, parts))


def words(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Line and every option or field that a message of the file names."""
    for line, text in texts(path):
        for word in WORD.findall(text):
            if not word.startswith(NOT_FIELDS):
                yield line, word.rstrip(".")


def recipes() -> dict[str, set[str]]:
    """The fields and sections of every recipe and variant, and those of every network that a recipe may name."""
    found = {
        f"networks:{name}": {f"model.{field}" for field in getattr(networks, name)()}
        for name in architecture.names()
        if hasattr(networks, name)
    }
    for path in sorted((ROOT / "configs").glob("*.py")):
        module = importlib.import_module(f"configs.{path.stem}")
        for variant in getattr(module, "VARIANTS", {}):
            names = {name for name, _ in settings.fields(module.get_config(variant))}
            found[f"{path.stem}:{variant}"] = names | {n.rsplit(".", k)[0] for n in names for k in (1, 2)}
    return found


FIELDS = set().union(*recipes().values())


def is_field(word: str) -> bool:
    """Whether a recipe has the field; a value within its name may be any."""
    name = re.escape(word.split("=")[0].removeprefix("--").removeprefix("config.")).replace(
        r"\{\}", r"[\w.]+"
    )
    return any(re.fullmatch(name, field) for field in FIELDS)


def options(name: str) -> set[str]:
    """Those of a command, or of `main`."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"ukbob_jax.commands.{name}").add_options(parser)
    return {word for action in parser._actions for word in action.option_strings} | {"--debug"}


def main_options() -> set[str]:
    return set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', (ROOT / "ukbob_jax" / "settings.py").read_text())) | {
        "--config", "--debug", "--workdir",
    }  # fmt: skip


def reached_by_commands() -> set[str]:
    """Modules that `ukbob` imports, at once or within a function."""
    paths = {dotted(path): path for path in FILES}
    found, ahead = set(), {"cli", *(f"commands.{name}" for name in cli.COMMANDS)}
    while ahead:
        name = ahead.pop()
        found.add(name)
        for _, imported in imports(paths[name]):
            known = imported if imported in paths else imported.rpartition(".")[0]
            ahead |= {known} & paths.keys() - found
    return found


@pytest.mark.parametrize("path", [path for path in FILES if [*words(path)]], ids=dotted)
def test_what_a_message_names_exists(path):
    name = dotted(path)
    if name.startswith("commands."):
        known = options(name.split(".")[1])
    else:
        known = main_options() | ({"--help", "--version"} if name in ("cli", "main") else set())
    for line, word in words(path):
        if word.startswith("--") and not word.startswith("--config."):
            assert word.split("=")[0] in known | {"--config"}, f"{path}:{line}: no option {word}"
        else:
            assert is_field(word), f"{path}:{line}: no recipe has {word}"


def test_messages_of_libraries_that_commands_use_name_no_field():
    shared = reached_by_commands()
    named = {dotted(path) for path in FILES if dotted(path) in shared and [*words(path)]}
    named = {name for name in named if not name.startswith(("commands.", "cli", "console"))}
    assert named == set(ONLY_MAIN), {
        f"{path}:{line}: {word}"
        for path in FILES
        if dotted(path) in named ^ set(ONLY_MAIN)
        for line, word in words(path)
    }
