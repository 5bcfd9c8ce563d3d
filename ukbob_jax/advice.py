"""How a message names a setting: as an argument in Python, an option of a command, or a field of a recipe.

A library does not know who called it. It writes `advice.setting("nan", "zero")`; a command or a job says once how its
user spells that, with `options` or `fields`, so that a message never names what the program that prints it lacks.
"""

import contextlib
import contextvars
import json
from collections.abc import Callable, Collection, Iterator
from typing import Any

Speller = Callable[[str, Any], str]


def setting(name: str, value: Any = None) -> str:
    """The setting as the user of this program writes it; "" where the program does not have it.

    Args:
        name: the argument's name in Python, such as "assume_ras".
        value: to set; None: the setting is only named.
    """
    return _SPELLER.get()(name, value)


def fix(text: str, name: str, value: Any = None) -> str:
    """`text` with the setting in place of `{}`; "" where the program does not have it."""
    spelt = setting(name, value)
    return text.format(spelt) if spelt else ""


@contextlib.contextmanager
def options(names: Collection[str]) -> Iterator[None]:
    """Spell settings as options of a command that has those of `names`: `--nan zero`, `--assume-ras`."""

    def spell(name: str, value: Any) -> str:
        if name not in names:
            return ""
        return f"--{name.replace('_', '-')}" + ("" if value is None or value is True else f" {value}")

    with _spelling(spell):
        yield


@contextlib.contextmanager
def fields(section: str, names: Collection[str]) -> Iterator[None]:
    """Spell settings as fields of a recipe's section that has those of `names`: `--config.source.nan=zero`."""

    def spell(name: str, value: Any) -> str:
        if name not in names:
            return ""
        field = f"config.{section}.{name}"
        return field if value is None else f"--{field}={value}"

    with _spelling(spell):
        yield


@contextlib.contextmanager
def _spelling(spell: Speller) -> Iterator[None]:
    before = _SPELLER.set(spell)
    try:
        yield
    finally:
        _SPELLER.reset(before)


def _argument(name: str, value: Any) -> str:
    """As an argument of a Python function, `nan="zero"`."""
    if value is None:
        return name
    return f"{name}={json.dumps(value) if isinstance(value, str) else value}"


_SPELLER: contextvars.ContextVar[Speller] = contextvars.ContextVar("advice", default=_argument)
