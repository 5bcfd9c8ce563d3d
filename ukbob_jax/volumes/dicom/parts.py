"""Series that hold several images under one UID: told apart by the tag that differs, never by position alone."""

import collections
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.volumes.dicom.slices import Slice

# Tags of `Slice.tags` in the order in which they split. Those that may change along one image, from one stretch of the
# table to the next, split only where the slices of two values lie among each other.
KINDS = ("contrast", "image type", "echo time", "b-value", "stack", "time point", "acquisition", "dimension")
ALWAYS = ("contrast", "echo time", "b-value", "stack")
TIMES = ("time point", "acquisition", "dimension")  # repeats of one image: what a 4-D file would hold
_SAME_MM = 0.01


class Part(NamedTuple):
    """The slices of one image.

    Attributes:
        values: kind and value of what tells it apart, in the order of `KINDS`; empty where the series is one image.
        slices: in any order.
        description: of the series; free text, for the terminal only.
    """

    values: tuple[tuple[str, str], ...]
    slices: list[Slice]
    description: str = ""

    @property
    def label(self) -> str:
        """What tells it apart, such as "image type WATER"; "" where the series is one image."""
        return ", ".join(f"{kind} {value or 'not said'}" for kind, value in self.values)

    @property
    def repeated(self) -> tuple[tuple[str, str], ...]:
        """What tells it apart from images that are no repeats of it, in time or at another b-value."""
        return tuple(pair for pair in self.values if pair[0] not in (*TIMES, "b-value"))


def split(slices: Sequence[Slice]) -> list[Part]:
    """The images in the slices of one series.

    Repeats of one image stand together and in the order of their time points, acquisitions and instance numbers.
    """
    parts = [Part((), list(slices))]
    for kind in KINDS:
        parts = [new for part in parts for new in _by(kind, part)]
    parts = [new for part in parts for new in _by_rank(part)]
    if len(parts) == 1:
        return parts
    firsts = {id(part): _first(part) for part in parts}
    kinds = collections.defaultdict(list)
    for part in sorted(parts, key=lambda part: firsts[id(part)]):
        kinds[part.repeated].append(part)
    return [part for together in kinds.values() for part in together]


def places(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices that lie at the same place along the normal together, from the lowest place on."""
    normal = np.cross(slices[0].along_row, slices[0].along_column)
    along = np.array([slice_.position_mm @ normal for slice_ in slices])
    order = np.argsort(along, kind="stable")
    found: list[list[Slice]] = []
    for before, number in zip([-1, *order], order):
        if before < 0 or along[number] - along[before] > _SAME_MM:
            found.append([])
        found[-1].append(slices[number])
    return found


def _by(kind: str, part: Part) -> list[Part]:
    """Split by the value of one tag, if its values are of whole images."""
    values: dict[str, list[Slice]] = {}
    for slice_ in part.slices:
        values.setdefault(slice_.tags.get(kind, ""), []).append(slice_)
    groups = list(values.values())
    counted = kind not in ALWAYS and len(values) == len(part.slices) > 2  # a number per slice, not per image
    if len(values) == 1 or counted or not (kind in ALWAYS or _interleaved(groups)):
        return [part]
    if kind == "dimension" and not _repeating(groups):
        return [part]  # such as the time within one image, which slices excited together share
    return [Part((*part.values, (kind, value)), members) for value, members in values.items()]


def _repeating(groups: Sequence[Sequence[Slice]]) -> bool:
    """Whether a place is in several groups."""
    owner = {id(slice_): number for number, group in enumerate(groups) for slice_ in group}
    found = places([slice_ for group in groups for slice_ in group])
    return any(len({owner[id(slice_)] for slice_ in place}) > 1 for place in found)


def _by_rank(part: Part) -> list[Part]:
    """Split by the order of instances, or of trigger times, at each place, where every place has as many.

    No tag says which instances belong to one image. They are taken to do so only if images follow each other without
    overlap, or the places do.
    """
    found = places(part.slices)
    count = len(found[0])
    if count == 1 or {len(place) for place in found} != {count}:
        return [part]
    for name in ("instance", "trigger"):
        if not all(name in slice_.order for slice_ in part.slices):
            continue
        place_by_place = [sorted(place, key=lambda one: one.order[name]) for place in found]
        numbers = [[one.order[name] for one in place] for place in place_by_place]
        distinct = all(len(set(row)) == count for row in numbers)
        images = [list(image) for image in zip(*place_by_place)]
        if distinct and (_apart(numbers) or _apart(list(zip(*numbers)))):
            return [
                Part((*part.values, ("time point", str(rank))), image) for rank, image in enumerate(images, 1)
            ]
    return [part]


def _apart(groups: Sequence[Sequence[tuple[float, ...]]]) -> bool:
    """Whether the ranges of the groups' numbers do not overlap."""
    ends = sorted((min(group), max(group)) for group in groups)
    return all(high < low for (_, high), (low, _) in itertools.pairwise(ends))


def _first(part: Part) -> tuple[tuple[float, ...], ...]:
    """The place of an image in the order of the series."""
    return tuple(
        min((slice_.order.get(name, ()) for slice_ in part.slices), default=())
        for name in ("time point", "acquisition", "instance", "trigger")
    )


def _interleaved(groups: Sequence[Sequence[Slice]]) -> bool:
    """Whether slices of one group lie at or between places of another."""
    first = groups[0][0]
    normal = np.cross(first.along_row, first.along_column)
    lines = [[float(slice_.position_mm @ normal) for slice_ in group] for group in groups]
    ends = sorted((min(along), max(along)) for along in lines)
    return any(low <= high + _SAME_MM for (_, high), (low, _) in itertools.pairwise(ends))
