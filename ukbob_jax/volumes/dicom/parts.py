"""Series that hold several images under one UID: told apart by the tag that differs, never by position alone."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.volumes.dicom.slices import Slice

# Tags of `Slice.tags` in the order in which they split. The later three may change along one image, from one stretch of
# the table to the next: they split only where the slices of two values lie among each other.
KINDS = ("contrast", "echo time", "b-value", "image type", "time point", "acquisition")
ALWAYS = KINDS[:3]
_SAME_MM = 0.01


class Part(NamedTuple):
    """The slices of one image.

    Attributes:
        label: what tells it apart, such as "image type WATER"; "" where the series is one image.
        slices: in any order.
        description: of the series; free text, for the terminal only.
    """

    label: str
    slices: list[Slice]
    description: str = ""


def split(slices: Sequence[Slice]) -> list[Part]:
    """The images in the slices of one series, in the order in which they first appear."""
    parts = [Part("", list(slices))]
    for kind in KINDS:
        parts = [new for part in parts for new in _by(kind, part)]
    return parts


def _by(kind: str, part: Part) -> list[Part]:
    values: dict[str, list[Slice]] = {}
    for slice_ in part.slices:
        values.setdefault(slice_.tags.get(kind, ""), []).append(slice_)
    if len(values) == 1 or not (kind in ALWAYS or _interleaved(list(values.values()))):
        return [part]
    return [
        Part(", ".join(filter(None, (part.label, f"{kind} {value or 'not said'}"))), members)
        for value, members in values.items()
    ]


def _interleaved(groups: Sequence[Sequence[Slice]]) -> bool:
    """Whether slices of one group lie at or between places of another."""
    first = groups[0][0]
    normal = np.cross(first.along_row, first.along_column)
    places = [[float(slice_.position_mm @ normal) for slice_ in group] for group in groups]
    ends = sorted((min(along), max(along)) for along in places)
    return any(low <= high + _SAME_MM for (_, high), (low, _) in itertools.pairwise(ends))
