"""Conditions on what a manifest knows of an image or its person: `sex=F`, `age=18:65`, `derived_from=`."""

from collections.abc import Callable, Mapping
from typing import Any

from ukbob_jax import advice
from ukbob_jax.errors import ConfigError
from ukbob_jax.sources.openmind_manifest import COLUMNS

Condition = Callable[[Mapping[str, Any]], bool]


def parse(text: str) -> Condition:
    """Return the condition that `text` means, a function of an image's facts by column.

    `NAME=VALUE,VALUE`: one of these, small letters count as capitals. `NAME=LOW:HIGH`: a number from LOW to HIGH, both
    included, either may be left out. `NAME=`: nothing is known. Whatever is not known fulfils no other condition.

    Raises:
        ConfigError: an unknown name, or not of that form.
    """
    name, equals, asked = (part.strip() for part in text.partition("="))
    field = advice.setting("where") or "where"
    if not equals or name not in COLUMNS:
        raise ConfigError(
            f"{field}: {text!r}: expected NAME=VALUE,VALUE or NAME=LOW:HIGH with a name of {', '.join(COLUMNS)}."
        )
    if not asked:
        return lambda facts: name not in facts
    if ":" in asked:
        low, _, high = asked.partition(":")
        try:
            lowest, highest = float(low or "-inf"), float(high or "inf")
        except ValueError as error:
            raise ConfigError(f"{field}: {text!r}: {asked!r} is no range of numbers LOW:HIGH.") from error
        return lambda facts: isinstance(facts.get(name), float) and lowest <= facts[name] <= highest
    values = {_plain(value) for value in asked.split(",")}
    return lambda facts: name in facts and _plain(facts[name]) in values


def _plain(value: Any) -> str:
    """A value as text that compares: 3 and 3.0 and "3" are one, and so are F and f."""
    try:
        return repr(float(value)) if not isinstance(value, bool) else str(value).lower()
    except ValueError:
        return str(value).strip().lower()
