"""Frozen dataclasses of options: changed, and as a recipe's section."""

import dataclasses

import pytest

from ukbob_jax import options
from ukbob_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Some:
    rate: float = 0.5
    name: str = "adam"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError("rate is negative.")


def test_a_changed_copy_is_checked_again_and_the_first_stays():
    first = Some()
    assert options.changed(first, {"rate": 1.0, "limit": 3}, "some") == Some(1.0, "adam", 3)
    assert first == Some() == options.changed(first, {}, "some")
    with pytest.raises(ConfigError, match="rate is negative"):
        options.changed(first, {"rate": -1.0}, "some")


def test_unknown_and_fixed_fields_are_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"^some: unknown option 'rte'; there are rate, name, limit\.$"):
        options.changed(Some(), {"rte": 1.0}, "some")
    with pytest.raises(ConfigError, match=r"unknown option 'name'; there are rate, limit\.$"):
        options.changed(Some(), {"name": "sgd"}, "some", fixed=("name",))


def test_a_section_has_the_fields_and_defaults_and_gives_the_options_back():
    section = options.section(Some)
    assert list(section) == sorted(options.names(Some)) == ["limit", "name", "rate"]
    assert Some(**section.to_dict()) == Some()
    section.limit = 7  # a placeholder of int
    section.rate = 0.25
    assert Some(**section.to_dict()) == Some(0.25, "adam", 7)
    with pytest.raises(TypeError):
        section.limit = "seven"


def test_what_a_recipe_does_not_set_is_left_out():
    assert options.section(Some, leave_out=("name", "limit")).to_dict() == {"rate": 0.5}
