"""Conditions on what a data set says of an image or its person: `sex=F`, `age=18:65`, `derived_from=`."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ukbob_jax.errors import ConfigError

Condition = Callable[[Mapping[str, Any]], bool]


def parse(text: str, names: Collection[str], field: str) -> Condition:
    """Return the condition that `text` means, a function of an image's facts by name; numbers are floats.

    `NAME=VALUE,VALUE`: one of these, small letters count as capitals. `NAME=LOW:HIGH`: a number from LOW to HIGH, both
    included, either may be left out. `NAME=`: nothing is known. Whatever is not known fulfils no other condition.

    Args:
        text: the condition.
        names: that may stand in it.
        field: that holds the condition, for messages.
    Raises:
        ConfigError: an unknown name, or not of that form.
    """
    name, equals, asked = (part.strip() for part in text.partition("="))
    if not equals or name not in names:
        raise ConfigError(
            f"{field}: {text!r}: expected NAME=VALUE,VALUE or NAME=LOW:HIGH with a name of {', '.join(names)}."
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
