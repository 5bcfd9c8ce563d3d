"""What classes are called in a mirror image, by the sides in their names."""

import re

import numpy as np

from ukbob_jax.anatomy import IDS, IGNORE, ONE_SIDED
from ukbob_jax.errors import ConfigError


def groups(names: dict[int, str]) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each class, the classes that a mirror image cannot tell from it, and what they are called there.

    Paired organs are each other's, one-sided ones their own. Lobes do not correspond one to one, but the lungs as
    wholes do: a lobe belongs to all lobes of its lung, and those to all of the other.

    Args:
        names: class of a network -> name, sides spelled as words, such as `left` and `right`.
    Raises:
        ConfigError: a structure of one side is among the names without that of the other.
    """
    found: dict[str, list[int]] = {}
    for i, name in names.items():
        found.setdefault(_group(name), []).append(i)
    missing = [name for name in found if _other_side(name) not in found]
    if missing:
        raise ConfigError(
            f"mirroring: the network knows {missing[0]} but not {_other_side(missing[0])}: a mirror image has no name."
        )
    return {
        i: (tuple(found[_group(name)]), tuple(found[_other_side(_group(name))])) for i, name in names.items()
    }


def lookup(names: dict[int, str]) -> np.ndarray:
    """uint8[256]: class of a network -> class in a mirror image; 255, ignore, where that has no name, as a single lobe.

    Args:
        names: as `groups`.
    Raises:
        ConfigError: as `groups`, or names that do not tell sides.
    """
    if unnamed := [name for name in names.values() if name.startswith("class_")]:
        raise ConfigError(
            f"mirroring: {unnamed[0]} may be of one side. Name the classes with config.data.organs or names."
        )
    lut = np.arange(256, dtype=np.uint8)
    for i, (group, image) in groups(names).items():
        lut[i] = image[0] if len(group) == len(image) == 1 else IGNORE
    return lut


def _group(name: str) -> str:
    """The name, or that of the whole lung for a lobe."""
    return f"lung_{name.rsplit('_', 1)[1]}" if name.startswith("lung_") and "_lobe_" in name else name


def _other_side(name: str) -> str:
    """The name in a mirror image; that of an organ with no partner stays, whatever side it is called after.

    Sides may be spelled as others do: Left-Hippocampus, kidney (RIGHT), ctx-lh-insula, LeftKidney, hippocampus_L.
    """
    return name if IDS.get(name) in ONE_SIDED else _SIDE.sub(_swapped, name)


# A side as a word: left and right in any case, lh and rh, and a capital L or R that a name starts or ends with.
_SIDE = re.compile(
    r"(?<![A-Za-z])(?:left|right|lh|rh)(?![a-z])|(?<![A-Za-z])(?:Left|Right|LEFT|RIGHT|LH|RH|Lh|Rh)(?![a-z])"
    r"|(?<=[a-z])(?:Left|Right)(?![a-z])|^[LR](?=[ _.-])|(?<=[ _.-])[LR]$"
)
_SWAPS = {"left": "right", "right": "left", "lh": "rh", "rh": "lh", "l": "r", "r": "l"}


def _swapped(side: re.Match[str]) -> str:
    """The other side, spelled as this one."""
    word, other = side[0], _SWAPS[side[0].lower()]
    return other if word.islower() else other.capitalize() if word[1:].islower() else other.upper()
