"""Every field of every recipe: type, unit, default and meaning, from the recipes and the classes of options.

What a field means is the comment beside its assignment, in `configs/common.py` or in a recipe, or the line of its class's
docstring. Units follow from a name's ending (`_mm`) or from how that text begins (`voxels, x y z`).
"""

import ast
import functools
import importlib
import inspect
import pathlib
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from configs import networks
from tools.site import comments
from ukbob_jax import settings
from ukbob_jax.models import architecture
from ukbob_jax.sources.files import ReadOptions
from ukbob_jax.training.objectives import tasks
from ukbob_jax.volumes import layouts

ROOT = pathlib.Path(__file__).resolve().parents[2]
SELECTORS = "see [selectors](../ingestion.md#selectors)"
UNITS = (  # of a name's ending
    (r"_mm3$", "mm³"),
    (r"(_|^)mm$|tolerances_mm", "mm"),
    (r"_gb$", "GB"),
    (r"s_mm2$", "s/mm²"),
    (r"_s$", "s"),
    (r"_years$", "years"),
    (r"_steps$|^train\.(steps|\w+_every)$|^probe\.every$", "steps"),
    (r"^epochs\.(total|warmup|decoder)$", "epochs"),
)
SAID = (  # of what is said of the field, at its beginning
    (r"voxels\b", "voxels"),
    (r"percent\b", "percent"),
    (r"tokens\b", "tokens"),
    (r"mm\b", "mm"),
    (r"(a )?fraction\b|share of", "fraction"),
)


class Field(NamedTuple):
    """One field of a recipe."""

    name: str  # dotted, without `config.`
    kind: str  # of its value
    unit: str  # empty: none
    default: str
    meaning: str


def recipes() -> dict[str, ModuleType]:
    """Name -> module of every recipe, in alphabetical order."""
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    modules = {name: importlib.import_module(f"configs.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "get_config")}


def fields(config: ml_collections.ConfigDict, recipe: str = "") -> Iterator[Field]:
    """Every field of a configuration; `recipe`, the file it is of, may say more of a field than the shared ones."""
    said = meanings(str(config.get("model", {}).get("name", "")), _method(config))
    remarks = [entry for entry in _of_file(recipe) if entry.comment] if recipe not in ("", "common") else []
    for name, value in settings.fields(config):
        meaning = said.get(name) or said.get(name.rpartition(".")[0], "")
        here = [entry.comment for entry in remarks if entry.name == name and entry.is_of(value)]
        if here and meaning and here[-1] not in meaning:
            meaning = f"{meaning.rstrip('.')}; here {here[-1]}"
        yield field(name, value, meaning or "".join(here[-1:]))


def field(name: str, value: Any, meaning: str) -> Field:
    """A field with this value."""
    if isinstance(value, ml_collections.ConfigDict):
        value = dict(value)
    kind = "text" if isinstance(value, str) else "none yet" if value is None else type(value).__name__
    kind = {
        "float": "number",
        "int": "whole number",
        "bool": "true or false",
        "dict": "section",
        "tuple": "sequence",
    }.get(kind, kind)
    units = [u for pattern, u in UNITS if re.search(pattern, name)]
    units += [u for pattern, u in SAID if re.match(pattern, meaning)]
    return Field(name, kind, units[0] if units else "", repr(value), meaning)


@functools.cache
def meanings(model: str, method: str = "") -> dict[str, str]:
    """Dotted field -> what is said of it: by any recipe, over that by classes of options, over that by `common`.

    Args:
        model: `config.model.name`.
        method: `config.pretrain.method`.
    """
    found: dict[str, str] = {}
    for name in recipes():
        found |= {entry.name: entry.comment for entry in _of_file(name) if entry.comment}
    found |= _of_sections(method)
    found |= {
        entry.name: entry.comment for entry in reversed(_of_file("common")) if entry.comment
    }  # `base` is first
    return found | _of_model(model) | _of_paths()


def _of_sections(method: str) -> dict[str, str]:
    sections = {**_sections(), **({"pretrain": tasks.METHODS[method].options} if method else {})}
    return {
        f"{s}.{name}": text
        for s, kind in sections.items()
        for name, text in comments.attributes(kind).items()
    }


@functools.cache
def _sections() -> dict[str, type]:
    """Section -> its class of options, of every `config.SECTION = options.section(CLASS)`."""
    found: dict[str, type] = {"source": ReadOptions}
    for name in ("common", *recipes()):
        module = importlib.import_module(f"configs.{name}")
        for entry in _of_file(name):
            call = entry.value
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "options.section":
                kind = getattr(module, ast.unparse(call.args[0]), None)
                if isinstance(kind, type):
                    found[entry.name] = kind
    return found


@functools.cache
def _of_file(name: str) -> tuple[comments.Assigned, ...]:
    return tuple(comments.assigned((ROOT / "configs" / f"{name}.py").read_text()))


def _of_model(name: str) -> dict[str, str]:
    """Fields of the network: what its class says, and over it the comments of `configs/networks.py`."""
    if not name or name == "plan":
        return {}
    module = architecture.find(name)
    found = {f"model.{n}": text for n, text in comments.attributes(_class(module)).items()}
    source = (ROOT / "configs" / "networks.py").read_text()
    mine = {"_common", "_plans", module.name}
    if "_plans(" not in (inspect.getsource(getattr(networks, name)) if hasattr(networks, name) else ""):
        mine.remove("_plans")
    said = (entry for entry in comments.assigned(source) if entry.function in mine and entry.comment)
    return found | {entry.name: entry.comment for entry in said}


def _class(network: architecture.Architecture) -> type:
    """The Flax module of a network."""
    if isinstance(network.build, functools.partial):  # of `architecture.build_module`
        return network.build.args[0]
    section = getattr(networks, network.name)().to_dict()
    return type(network.build({name: value for name, value in section.items() if name != "name"}))


def _of_paths() -> dict[str, str]:
    """What lies below `source.paths`: the place of the data, and what each layout selects by."""
    takes = {layout: layouts.arguments(layout) for layout in layouts.names()}
    found = {}
    for name in {name for arguments in takes.values() for name in arguments}:
        having = ", ".join(f"`{layout}`" for layout in takes if name in takes[layout])
        found[f"source.paths.{name}"] = f"of {having}: {SELECTORS}"
    places = {
        "root": "folder of the data set",
        "images": "folder of images, or one",
        "labels": "the same of label maps",
    }
    return found | {f"source.paths.{name}": text for name, text in places.items()}


def _method(config: ml_collections.ConfigDict) -> str:
    return str(config.get("pretrain", {}).get("method", ""))
