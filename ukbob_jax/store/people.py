"""Groups of the people of a store: by site, sex and age."""

import math
from collections.abc import Mapping
from typing import Any

ATTRIBUTES = ("site", "sex", "age")  # that people are grouped by
AGE = "age_years"  # name of the age in a store


def group_of(attributes: Mapping[str, Any], attribute: str, age_band: float = 10.0) -> str:
    """Return the name of a person's group; "": not known. Ages are in bands of `age_band` years, from 0 on."""
    if attribute != "age":
        return str(attributes.get(attribute) or "")
    try:
        age = float(attributes.get(AGE) or "nan")
    except (TypeError, ValueError):
        return ""
    if not math.isfinite(age):
        return ""
    first = age_band * math.floor(age / age_band)
    return f"{first:g} to {first + age_band:g} years"


def in_order(name: str) -> tuple[float, str]:
    """Sort bands of age by their first year, other names by the alphabet."""
    first = name.split(" ")[0]
    return (float(first), "") if name.endswith(" years") and first.isdigit() else (math.inf, name)
