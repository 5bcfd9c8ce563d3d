"""Which Dixon contrast a series shows, by its description and its image type."""

import re
from collections.abc import Sequence

CONTRASTS = ("fat", "water", "in_phase", "opposed_phase")  # the order in which they are stored

_ENDINGS = {"F": "fat", "W": "water", "in": "in_phase", "opp": "opposed_phase"}
_ENDING = re.compile(r"_(in|opp|F|W)$")
_TYPES = {  # values of ImageType and FrameType
    "FAT": "fat",
    "WATER": "water",
    "IN_PHASE": "in_phase",
    "INPHASE": "in_phase",
    "OPP_PHASE": "opposed_phase",
    "OPPOSED_PHASE": "opposed_phase",
    "OUT_PHASE": "opposed_phase",
    "OUT_OF_PHASE": "opposed_phase",
    "OUTPHASE": "opposed_phase",
}
_THIRD = {"F": "fat", "W": "water", "IP": "in_phase", "OP": "opposed_phase"}  # Philips' mDIXON: third value
_NAMES = {
    "in": "in_phase",
    "ip": "in_phase",
    "out": "opposed_phase",
    "op": "opposed_phase",
    "opp": "opposed_phase",
}


def canonical(name: str) -> str:
    """The name in `CONTRASTS` of a Dixon contrast called otherwise, such as "out" or "W"; other names as they are."""
    lower = re.sub(r"[\s-]+", "_", name.strip().lower())
    short = {letter.lower(): long for letter, long in _THIRD.items()}
    return _TYPES.get(lower.upper()) or (_NAMES | short).get(lower, name)


def dixon_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names in `CONTRASTS` of a network's contrasts, in the order given; none unless all are Dixon contrasts."""
    found = tuple(map(canonical, names))
    return found if set(found) <= set(CONTRASTS) else ()


def recognise(description: str, image_type: Sequence[str]) -> tuple[str, bool]:
    """The contrast's name, "" for none of the four, and whether description and image type contradict each other.

    The description decides, as in UK Biobank's archives, where it ends in `_in`, `_opp`, `_F` or `_W`.
    """
    ending = _ENDING.search(description.strip())
    described = _ENDINGS[ending.group(1)] if ending else ""
    tokens = [str(token).upper() for token in image_type]
    typed = next((_TYPES[token] for token in tokens if token in _TYPES), "")
    typed = typed or next((_THIRD[token] for token in tokens[2:3] if token in _THIRD), "")
    return described or typed, bool(described and typed and described != typed)
