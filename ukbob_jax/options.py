"""Frozen dataclasses of options: how one is made from another, and how a recipe's section is made from one."""

import dataclasses
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import ml_collections
from ml_collections import config_dict

from ukbob_jax.errors import ConfigError

Options = TypeVar("Options")


def changed(options: Options, changes: Mapping[str, Any], title: str, fixed: Collection[str] = ()) -> Options:
    """A copy of `options`, a dataclass, with other values in some of its fields.

    Args:
        options: the dataclass.
        changes: field -> value.
        title: what an error message calls these options.
        fixed: fields that may not be changed here.

    Raises:
        ConfigError: a field that does not exist; the message lists those that do.
    """
    known = [name for name in names(type(options)) if name not in fixed]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise ConfigError(f"{title}: unknown option {unknown[0]!r}; there are {', '.join(known)}.")
    return dataclasses.replace(options, **changes)  # pyright: ignore[reportArgumentType]


def names(options: type) -> list[str]:
    """The fields of a dataclass, in their order."""
    return [field.name for field in dataclasses.fields(options)]


def section(options: type, leave_out: Collection[str] = ()) -> ml_collections.ConfigDict:
    """A recipe's section with the fields and defaults of a dataclass.

    A field whose default is None becomes a placeholder of the field's other type, so that the command line can set it.

    Args:
        options: the dataclass; every field has a default.
        leave_out: fields that a recipe does not set.
    """
    types = typing.get_type_hints(options)
    made = ml_collections.ConfigDict()
    for field in dataclasses.fields(options):
        if field.name in leave_out:
            continue
        made[field.name] = field.default
        if field.default is None:
            [kind] = [t for t in typing.get_args(types[field.name]) if t is not type(None)]
            made[field.name] = config_dict.placeholder(kind)
    return made
