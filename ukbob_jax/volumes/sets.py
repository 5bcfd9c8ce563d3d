"""Scans that are unlike the others of their set: told once per kind, with how many they are and which, for example.

What real sets have is passed over: slices of 1.25 to 5 mm in one set of CT, a few body parts more or less along z, MR
in arbitrary units. A set whose scans differ widely among themselves has no odd ones.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ukbob_jax.volumes import plausibility
from ukbob_jax.volumes.case import listed

ODD = 1 / 3  # of the scans of a set may be odd at most; beyond, the set is diverse
SCANS = 3  # that make a set in which one can be odd
UNSCALED = 500.0  # values that only HU + 1024 or another scanner's scale reach in most of the body


class Scan(Protocol):
    """What is asked of a scan; a row of a store's manifest has it."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def shape(self) -> Sequence[int]:
        """Voxels, x y z."""
        ...

    @property
    def spacing_mm(self) -> Sequence[float]:
        """Voxel spacing, x y z."""
        ...

    @property
    def contrasts(self) -> Sequence[str]:
        """Names of the channels."""
        ...

    @property
    def modality(self) -> str:
        """As DICOM spells it; "": not known."""
        ...

    @property
    def intensity(self) -> Mapping[str, Sequence[float]]:
        """Statistics by name, a number per channel; may be empty."""
        ...

    @property
    def quality(self) -> Mapping[str, Any]:
        """Findings; "doubts" lists those of `plausibility`."""
        ...


def remarks(scans: Iterable[Scan], normalize: str = "") -> list[str]:
    """Return a line for each way in which some scans of a set are doubtful or unlike the others.

    Args:
        scans: of the set.
        normalize: of the training that reads them, see `intensity.normalize`; "": none yet.
    """
    found = list(scans)
    return [*_doubts(found), *unlike(found, normalize)]


def unlike(scans: Sequence[Scan], normalize: str = "") -> list[str]:
    """`remarks` without what is doubtful about single scans."""
    mixed = _modalities(scans)
    return [*mixed.values(), *_scales(scans, normalize, set(mixed)), *_geometry(scans)]


def _doubts(scans: Sequence[Scan]) -> list[str]:
    """What was doubtful about single scans when they were converted, one line for each kind."""
    kinds: dict[str, dict[str, str]] = defaultdict(dict)
    for scan in scans:
        for doubt in scan.quality.get("doubts", ()):
            kinds[doubt.partition(":")[0]][scan.id] = doubt
    told = []
    for kind, of in kinds.items():
        others = [scan.spacing_mm for scan in scans if scan.id not in of]
        if kind in (plausibility.IDENTITY.partition(":")[0], plausibility.DEFAULT) and _one_mm(others):
            continue
        told.append(f"{_some(of, scans)}: {next(iter(of.values()))}.")
    return told


def _one_mm(spacings: list[Sequence[float]]) -> bool:
    """Whether scans have voxels of 1 mm, so that a default affine is right in what it says of spacing."""
    return bool(spacings) and bool(
        (np.abs(np.median(np.array(spacings), axis=0) - 1) <= plausibility.SAME_SPACING).all()
    )


def _channels(scans: Sequence[Scan]) -> dict[str, list[tuple[Scan, int]]]:
    """Contrast -> the scans that have it, and at which channel."""
    found: dict[str, list[tuple[Scan, int]]] = defaultdict(list)
    for scan in scans:
        for channel, name in enumerate(scan.contrasts):
            found[name].append((scan, channel))
    return found


def _modalities(scans: Sequence[Scan]) -> dict[str, str]:
    """Contrast -> which modalities are mixed under its name."""
    told = {}
    for contrast, members in _channels(scans).items():
        of: dict[str, list[str]] = defaultdict(list)
        for scan, _ in members:
            if scan.modality:
                of[scan.modality].append(scan.id)
        if len(of) > 1:
            each = ", ".join(f"{len(ids)} {name} ({listed(ids)})" for name, ids in of.items())
            told[contrast] = f"contrast {contrast!r} mixes modalities: {each}. Keep them apart."
    return told


def _scales(scans: Sequence[Scan], normalize: str, told: set[str]) -> list[str]:
    """Contrasts that hold HU in some scans, or should, and surely no HU in others."""
    expected, lines = plausibility.is_hu_window(normalize), []
    doubted = {s.id for s in scans if any("HU" in doubt for doubt in s.quality.get("doubts", ()))}
    for contrast, members in _channels(scans).items():
        members = [(scan, channel) for scan, channel in members if scan.intensity]
        hu = [scan.id for scan, channel in members if plausibility.holds_negative(scan.intensity, channel)]
        other = {scan.id: _scale(scan, channel) for scan, channel in members if _scale(scan, channel)}
        other = {name: scale for name, scale in other.items() if name not in doubted}
        if contrast in told or not other or not (hu or expected):
            continue
        reach = (
            f"{len(hu)} scans hold negative values as HU do ({listed(hu)})" if hu else f"{normalize} is of HU"
        )
        lines.append(
            f"contrast {contrast!r}: {reach}, but {_some(other, scans)} no negative value and reach "
            f"{next(iter(other.values()))}: CT without its rescale (HU + 1024), scaled, or another modality."
        )
    return lines


def _scale(scan: Scan, channel: int) -> str:
    """How far a channel reaches that surely holds no HU; "": it may."""
    low, high = (scan.intensity[name][channel] for name in ("low", "high"))
    scaled = -1 <= low <= high <= 1
    return f"{high:.4g}" if scaled or (low >= 0 and high > UNSCALED) else ""


def _geometry(scans: Sequence[Scan]) -> list[str]:
    """Scans whose voxels or field of view are far from the median of the set."""
    if len(scans) < SCANS:
        return []
    spacing = np.array([scan.spacing_mm for scan in scans], np.float64)  # n 3
    extent = spacing * np.array([scan.shape for scan in scans], np.float64)
    edge = np.cbrt(spacing.prod(1, keepdims=True))
    coarse = _far(spacing, plausibility.SPACING_FACTOR)
    large = _far(extent, plausibility.EXTENT_FACTOR)
    scaled = ((coarse == large) & (coarse != 0)).any(1)  # thin slices alone do not change what is covered
    voxels = scaled | (_far(edge, plausibility.SPACING_FACTOR) != 0).any(1)
    covers = (large[:, :2] != 0).any(1) & ~voxels
    return [
        *_odd(
            scans, voxels, spacing, lambda of, median: f"voxels of {of}, the median of the set is {median}"
        ),
        *_odd(scans, covers, extent, lambda of, median: f"covering {of}, the median of the set is {median}"),
    ]


def _far(values: np.ndarray, factor: float) -> np.ndarray:
    """Per value `n a`: 1 where it is more than `factor` above the median of its column, -1 below, else 0."""
    ratio = values / np.median(values, axis=0)
    return (ratio > factor).astype(int) - (ratio < 1 / factor).astype(int)


def _odd(
    scans: Sequence[Scan], chosen: np.ndarray, values: np.ndarray, say: Callable[[str, str], str]
) -> list[str]:
    """A line of the scans that are `chosen`, none where they are too many to be odd."""
    if not 0 < chosen.sum() <= ODD * len(scans):
        return []
    ids = {scan.id: "" for scan, odd in zip(scans, chosen) if odd}
    one, median = (plausibility.in_mm(row) for row in (values[np.argmax(chosen)], np.median(values, axis=0)))
    return [f"{_some(ids, scans)}: {say(one, median)}. Check the unit and the header."]


def _some(ids: Iterable[str], scans: Sequence[Scan]) -> str:
    """How many of the set, and the first few."""
    ids = list(ids)
    return f"{len(ids)} of {len(scans)} scans ({listed(ids)})"
