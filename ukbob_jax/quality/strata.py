"""Groups of people that get limits of their own: a bladder, a prostate or a femur is judged among its like."""

from collections.abc import Mapping, Sequence
from typing import Any

from ukbob_jax.errors import ConfigError

STRATA = ("sex", "height")
UNKNOWN = "unknown"


def names(people: Sequence[Mapping[str, Any]], by: Sequence[str], band_mm: float) -> list[str] | None:
    """Name the group of every subject, such as "F", "1700-1800 mm" or "F 1700-1800 mm"; None without strata.

    A subject whose sex or height is not known is in a group of its like, "unknown"; `min_count` of `solf.fit` decides
    whether that group is large enough to be judged.

    Args:
        people: attributes of every subject, which may have "sex" and "height_mm".
        by: of `STRATA`, in this order.
        band_mm: width of a height group.
    Raises:
        ConfigError: another stratum, or a width that is not positive.
    """
    unknown = [name for name in by if name not in STRATA]
    if unknown:
        raise ConfigError(f"solf.strata: {unknown[0]!r} is not one of {', '.join(STRATA)}.")
    if not band_mm > 0:
        raise ConfigError(f"solf.height_band_mm={band_mm}: must be positive.")
    return [name(attributes, by, band_mm) for attributes in people] if by else None


def name(attributes: Mapping[str, Any], by: Sequence[str], band_mm: float) -> str:
    """Name the group of one subject."""
    return " ".join(_sex(attributes) if stratum == "sex" else _band(attributes, band_mm) for stratum in by)


def _sex(attributes: Mapping[str, Any]) -> str:
    return attributes.get("sex") or UNKNOWN


def _band(attributes: Mapping[str, Any], band_mm: float) -> str:
    height = attributes.get("height_mm")
    if not height:
        return UNKNOWN
    low = height // band_mm * band_mm
    return f"{low:g}-{low + band_mm:g} mm"
