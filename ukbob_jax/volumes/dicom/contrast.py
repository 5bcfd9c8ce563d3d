"""Which Dixon contrast a series shows, by its description and its image type."""

import re
from collections.abc import Sequence

CONTRASTS = ("fat", "water", "in_phase", "opposed_phase")  # the order in which they are stored

_ENDINGS = {"F": "fat", "W": "water", "in": "in_phase", "opp": "opposed_phase"}
_ENDING = re.compile(r"_(in|opp|F|W)$")
_TYPES = {
    "FAT": "fat",
    "WATER": "water",
    "IN_PHASE": "in_phase",
    "OPP_PHASE": "opposed_phase",
    "OUT_PHASE": "opposed_phase",
}


def recognise(description: str, image_type: Sequence[str]) -> tuple[str, bool]:
    """The contrast's name, "" for none of the four, and whether description and image type contradict each other.

    The description decides, as in UK Biobank's archives, where it ends in `_in`, `_opp`, `_F` or `_W`.
    """
    ending = _ENDING.search(description.strip())
    described = _ENDINGS[ending.group(1)] if ending else ""
    typed = next((_TYPES[token] for token in map(str.upper, image_type) if token in _TYPES), "")
    return described or typed, bool(described and typed and described != typed)
