"""Which stored label id is which class of the export: its name and its four-digit id."""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax import anatomy, files
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.export2d import naming
from ukbob_jax.export2d.options import Export2dOptions, field
from ukbob_jax.store import schema
from ukbob_jax.store.reader import Store

_FOUR = re.compile(r"\d{4}")


class Class(NamedTuple):
    """A class of the export."""

    name: str
    four: str  # its id, four digits


def names(store: Store, label: str, subjects: Collection[str]) -> dict[int, str]:
    """Return stored id -> name, without the background: as the data set names them, else those of our taxonomy."""
    if schema.is_mask(label):
        return {1: label.removeprefix(schema.MASKS)}
    found = store.label_names(label, subjects)
    if not found:
        found = {i: name for i, name in anatomy.NAMES.items() if i != anatomy.UNUSED}
    return {i: re.sub(r"\s+", "_", name.strip()) for i, name in found.items() if i not in (0, anatomy.IGNORE)}


def read_mapping(path: str) -> dict[str, str]:
    """Read a file of class name -> four-digit id, as the data set has it.

    Raises:
        FileError: it is missing, or is not such a file; the first name that is wrong is named.
    """
    found = files.read_json(path)
    if not isinstance(found, Mapping):
        raise FileError(f"{path}: must hold one JSON object of class name and id.")
    if told := mapping_defects(found):
        raise FileError(f"{path}: {told[0]} Correct it.")
    return dict(found)


def mapping_defects(found: Mapping[str, Any]) -> list[str]:
    """Tell what is wrong with class names and ids."""
    told = [
        f"class {name!r} has the id {value!r}; it must be a string of four digits, such as '0003'."
        for name, value in found.items()
        if not isinstance(value, str) or not _FOUR.fullmatch(value)
    ]
    owners: dict[str, str] = {}
    for name, value in found.items():
        if isinstance(value, str) and owners.setdefault(value, name) != name:
            told.append(f"classes {owners[value]!r} and {name!r} share the id {value}.")
    return told


def table(
    named: Mapping[int, str], present: Collection[int], label: str, options: Export2dOptions
) -> dict[int, Class]:
    """Return stored id -> class for every class that is exported.

    Args:
        named: stored id -> name.
        present: ids that some subject has.
        label: name of the label set.
        options: its `classes` and `mapping` count.
    Raises:
        ConfigError: a class that is present has no name or id, or one that is asked for does not exist.
        FileError: the mapping file cannot be used.
    """
    known = read_mapping(options.mapping) if options.mapping else {}
    ours = {name.lower(): f"{i:04d}" for i, name in anatomy.NAMES.items() if i not in (0, anatomy.UNUSED)}
    ids = {i: known.get(name, "" if known else ours.get(name.lower(), "")) for i, name in named.items()}
    if unknown := [name for name in options.classes if name not in named.values()]:
        raise ConfigError(
            f"{field('classes')}: label set {label!r} has no class {unknown[0]!r}; it has {', '.join(named.values())}."
        )
    wanted = {i for i in present if not options.classes or named.get(i) in options.classes}
    if lacking := sorted(i for i in wanted if not ids.get(i)):
        what = f"class {named[lacking[0]]!r}" if lacking[0] in named else f"id {lacking[0]}"
        raise ConfigError(
            f"{what} of label set {label!r} has no class id. Give it one in the file of {field('mapping')}, a JSON object "
            f'such as {{"liver": "0005"}}, or leave it out by {field("classes")}.'
        )
    found = {
        i: Class(name, ids[i])
        for i, name in named.items()
        if ids[i] and (not options.classes or name in options.classes)
    }
    owners: dict[str, int] = {}
    for i, of in found.items():
        if owners.setdefault(of.four, i) != i:
            raise ConfigError(
                f"ids {owners[of.four]} and {i} of label set {label!r} are both class {of.four} ({of.name!r}): their masks "
                "would have the same names. Give their structures one id when they are ingested, by a label table."
            )
    if options.style == "demo":
        _check_written(found, label)
    return found


def _check_written(found: Mapping[int, Class], label: str) -> None:
    """Refuse classes whose masks would have the same names in style demo."""
    owners: dict[str, str] = {}
    for of in found.values():
        first = owners.setdefault(naming.demo_class(of.name), of.name)
        if first != of.name:
            raise ConfigError(
                f"classes {first!r} and {of.name!r} of label set {label!r} would have masks of the same names in style "
                f"demo, {naming.demo_class(of.name)!r}. Export one of them by {field('classes')}, or choose the other style."
            )


def lookup(exported: Mapping[int, Class]) -> np.ndarray:
    """Return uint8 `256`: stored id -> itself where its class is exported, else 0."""
    found = np.zeros(256, np.uint8)
    found[list(exported)] = list(exported)
    return found
