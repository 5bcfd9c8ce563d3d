"""Series of a neck-to-knee Dixon scan to stations: one table position each, its contrasts as channels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax import advice
from ukbob_jax.errors import GeometryError, MismatchError
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes.dicom.series import Defect, Series
from ukbob_jax.volumes.volume import Volume

SAME_PLACE = 0.25  # of a station's height: centres nearer than this are one table position
BROKEN_OFF = 0.95  # of the height of a series that covers it: a shorter one is a repeat that was not finished
SAME_GRID = 0.1  # voxels between the contrasts of one station


class Stations(NamedTuple):
    """What was found of a scan.

    Attributes:
        volumes: `x y z c` each, RAS, from head to knee; c in the order asked for.
        chosen: per station the series of each contrast.
        repeats: series that a later one of the same station and contrast replaces.
        others: series of none of the contrasts asked for.
        broken: series that could not be read and were not needed.
    """

    volumes: tuple[Volume, ...]
    chosen: tuple[tuple[Series, ...], ...]
    repeats: int
    others: int
    broken: int


def arrange(
    series: Sequence[Series], defects: Sequence[Defect], contrasts: Sequence[str], where: str
) -> Stations:
    """Group series by table position, choose among repeats, and join contrasts.

    Of repeated series the latest is taken, from the latest acquisition of that station that has every contrast. A
    series that lies inside a longer one of its contrast was broken off, and is left out.

    Args:
        series, defects: as `assemble` gives them.
        contrasts: names to be found at every station, the order of channels.
        where: begins messages.
    Raises:
        MismatchError: a contrast is missing at a station, or there is no Dixon series at all.
        GeometryError: a series that is needed is broken, or the contrasts of a station lie on different grids.
    """
    wanted = [found for found in series if found.contrast in contrasts]
    defects = [defect for defect in defects if defect.contrast in contrasts]
    if not wanted and not defects:
        raise MismatchError(
            f"{where}: none of its {len(series)} series shows {', '.join(contrasts)}; expected descriptions that end "
            "in _in, _opp, _F, _W. Is it field 20201?"
        )
    places = by_place([found for found in wanted if not _broken_off(found, wanted)])
    chosen = [choose(place, contrasts) for place in places]
    _check_complete(chosen, contrasts, defects, where)
    _check_defects(chosen, defects)
    volumes = tuple(join(station, contrasts, where) for station in chosen)
    used = len(chosen) * len(contrasts)
    return Stations(
        volumes,
        tuple(tuple(station[name] for name in contrasts) for station in chosen),
        repeats=len(wanted) - used,
        others=len(series) - len(wanted),
        broken=len(defects),
    )


def by_place(series: Sequence[Series]) -> list[list[Series]]:
    """Series grouped by table position, from head to knee."""
    places: list[list[Series]] = []
    for found in sorted(series, key=lambda one: -_middle(one.volume)[2]):
        height = found.volume.shape[2] * found.volume.spacing_mm[2]
        near = (
            places and abs(_middle(places[-1][0].volume)[2] - _middle(found.volume)[2]) < SAME_PLACE * height
        )
        if near:
            places[-1].append(found)
        else:
            places.append([found])
    return places


def _broken_off(found: Series, series: Sequence[Series]) -> bool:
    """Whether another series of this contrast covers it and goes on; neighbouring stations share a fifth at most."""
    low, high = _ends(found.volume)
    margin = found.volume.spacing_mm[2] / 2
    for other in series:
        bottom, top = _ends(other.volume)
        inside = bottom - margin <= low and high <= top + margin
        if other.contrast == found.contrast and inside and high - low < BROKEN_OFF * (top - bottom):
            return True
    return False


def choose(place: Sequence[Series], contrasts: Sequence[str]) -> dict[str, Series]:
    """One series per contrast of a table position.

    Contrasts of two breath-holds do not belong together: an acquisition that has them all is preferred to a later
    one that was broken off. Where no acquisition has them all, the latest of each is taken.
    """
    for when in sorted({found.acquired for found in place}, reverse=True):
        together = [found for found in place if found.acquired == when]
        if {found.contrast for found in together} >= set(contrasts):
            place = together
            break
    return {found.contrast: found for found in sorted(place, key=lambda one: (one.made, one.number, one.uid))}


def join(station: dict[str, Series], contrasts: Sequence[str], where: str) -> Volume:
    """The contrasts of one station as channels.

    Raises:
        GeometryError: they lie on different grids; the message names both series.
    """
    first, *rest = (station[name] for name in contrasts)
    for other in rest:
        same = other.volume.shape == first.volume.shape
        apart = affines.corner_distance_mm(first.volume.affine, other.volume.affine, first.volume.shape)
        if not same or apart > SAME_GRID * min(first.volume.spacing_mm):
            raise GeometryError(
                f"{where}: series {first.uid} ({first.contrast}) has {first.volume.shape} voxels, {other.uid} "
                f"({other.contrast}) {other.volume.shape}, corners {apart:.1f} mm apart: slices are missing at an end, "
                "or the series are of two stations. Fetch them again."
            )
    array = np.stack([station[name].volume.array for name in contrasts], axis=-1)
    return Volume(array, first.volume.affine)


def _check_complete(
    chosen: list[dict[str, Series]], contrasts: Sequence[str], defects: Sequence[Defect], where: str
) -> None:
    for number, station in enumerate(chosen, 1):
        missing = [name for name in contrasts if name not in station]
        if not missing:
            continue
        broken = next((defect for defect in defects if defect.contrast in missing), None)
        if broken:
            raise broken.kind(broken.reason)
        height = _middle(next(iter(station.values())).volume)[2]
        raise MismatchError(
            f"{where}: no {' and no '.join(missing)} at station {number} of {len(chosen)} from the head "
            f"(z = {height:.0f} mm); it has {', '.join(sorted(station))}. Fetch the archive again, or ask for those "
            f"contrasts only{advice.fix(' with {}', 'contrasts')}."
        )


def _check_defects(chosen: list[dict[str, Series]], defects: Sequence[Defect]) -> None:
    """Refuse a broken series that no sound one of the same station replaces."""
    for defect in defects:
        heights = [_ends(next(iter(station.values())).volume) for station in chosen]
        if not any(low <= defect.centre_mm[2] <= high for low, high in heights):
            raise defect.kind(defect.reason)


def _middle(volume: Volume) -> np.ndarray:
    """The centre of a volume, mm, 3."""
    return (volume.affine @ [*(np.array(volume.shape) - 1) / 2, 1])[:3]


def _ends(volume: Volume) -> tuple[float, float]:
    """Heights of the middles of a volume's lowest and highest slice, mm."""
    x, y, z = np.array(volume.shape) - 1
    low, high = (float((volume.affine @ [x / 2, y / 2, end, 1])[2]) for end in (0, z))
    return min(low, high), max(low, high)
