"""Siemens mosaics: all slices of a volume as tiles of one large image.

The number of slices and the direction in which they are stacked are private: (0019,xx0A) of the block "SIEMENS MR HEADER",
or the CSA header (0029,xx10) of the block "SIEMENS CSA HEADER", whose layout is described in nibabel's `csareader`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.errors import GeometryError
from ukbob_jax.volumes.dicom.library import parse, quiet

_COUNT = 0x0019, "SIEMENS MR HEADER", 0x0A  # group, private creator, element
_CSA = 0x0029, "SIEMENS CSA HEADER", 0x10
_BLOCKS = range(0x10, 0x100)  # of a private group; each has its creator's name and 256 elements


class Layout(NamedTuple):
    """How the slices of a mosaic lie in it and in the body.

    Attributes:
        slices: number of tiles that are slices, row by row; the others are empty.
        across: tiles in a row, and rows of them.
        step_mm: from one slice to the next, 3; in DICOM's coordinates.
    """

    slices: int
    across: int
    step_mm: np.ndarray


def is_mosaic(image_type: Sequence[str]) -> bool:
    """Whether ImageType says so."""
    return "MOSAIC" in map(str, image_type)


def read_layout(data: bytes, normal: np.ndarray, size: tuple[int, int], where: str) -> Layout:
    """The layout of a mosaic, by its header.

    Args:
        data: the whole file.
        normal: cross product of row and column direction, 3: the direction of slices where CSA gives none.
        size: rows, columns of the mosaic.
        where: names the file in messages.
    Raises:
        GeometryError: the header does not say how many slices there are, or how far apart; or they do not fit.
    """
    with quiet():
        tags = ["SpacingBetweenSlices", *_places(*_COUNT), *_places(*_CSA)]
        found = parse(data, tags, pixels=False)
        csa = _csa(_private(found, *_CSA))
        slices = _number(_private(found, *_COUNT)) or int(_first(csa, "NumberOfImagesInMosaic") or 0)
        step = float(found.get("SpacingBetweenSlices") or _first(csa, "SpacingBetweenSlices") or 0)
    if slices < 1:
        raise GeometryError(
            f"{where}: a mosaic that does not say how many slices it holds: (0019,100A) and the CSA header (0029,1010) "
            "are gone. Export it again with Siemens' private tags."
        )
    across = int(np.ceil(np.sqrt(slices)))
    if size[0] % across or size[1] % across:
        raise GeometryError(
            f"{where}: a mosaic of {slices} slices, {across} x {across} tiles, does not fit {size[0]} rows and "
            f"{size[1]} columns. Export it again."
        )
    if not step > 0:
        raise GeometryError(
            f"{where}: a mosaic without SpacingBetweenSlices, so where its slices lie is not known. Export it again."
        )
    return Layout(slices, across, step * _direction(csa, normal, where))


def tiles(pixels: np.ndarray, layout: Layout) -> np.ndarray:
    """The slices of a mosaic `rows columns` as `slice rows columns`."""
    rows, columns = (length // layout.across for length in pixels.shape)
    grid = pixels.reshape(layout.across, rows, layout.across, columns).swapaxes(1, 2)
    return grid.reshape(-1, rows, columns)[: layout.slices]


def corner_mm(
    position_mm: np.ndarray,
    directions: tuple[np.ndarray, np.ndarray],
    spacing_mm: tuple[float, float],
    size: tuple[int, int],
    layout: Layout,
) -> np.ndarray:
    """Centre of the first pixel of the first slice, 3.

    ImagePositionPatient is that of one slice as large as the mosaic around the same centre.

    Args:
        position_mm: ImagePositionPatient, 3.
        directions: unit vectors of growing column and of growing row index, 3 each.
        spacing_mm: between rows, between columns.
        size: rows, columns of the mosaic.
        layout: as `read_layout` gives it.
    """
    rows, columns = ((length - length // layout.across) / 2 for length in size)
    return position_mm + directions[0] * columns * spacing_mm[1] + directions[1] * rows * spacing_mm[0]


def _direction(csa: Mapping[str, Any], normal: np.ndarray, where: str) -> np.ndarray:
    """Unit vector from the first slice to the next: SliceNormalVector of the CSA header, else the cross product."""
    said = csa.get("SliceNormalVector", ())
    if len(said) != 3:
        return normal
    along = float(np.dot(np.array(said, float), normal))
    if abs(abs(along) - 1) > 1e-2:
        raise GeometryError(
            f"{where}: SliceNormalVector of the CSA header is not at right angles to the image. Export it again."
        )
    return np.sign(along) * normal


def _places(group: int, _: str, element: int) -> list[int]:
    """Every tag at which a private element may be, and those of the creators' names that say where it is."""
    return [group << 16 | tag for block in _BLOCKS for tag in (block, block << 8 | element)]


def _private(found: Any, group: int, creator: str, element: int) -> Any:
    """Value of a private tag, None where there is none."""
    try:
        return found.private_block(group, creator)[element].value
    except KeyError:
        return None


def _number(value: Any) -> int:
    """A count, as a number or as the two bytes of an implicit export; 0 where there is none."""
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little")
    return int(value or 0)


def _csa(value: Any) -> dict[str, list]:
    """Items of a CSA header by name; empty where there is none or it cannot be read."""
    if not isinstance(value, bytes):
        return {}
    with quiet():  # the module warns that it is experimental
        from nibabel.nicom import csareader
    try:
        return {name: tag["items"] for name, tag in csareader.read(value)["tags"].items()}
    except Exception:  # a text, or cut off: as if it were not there
        return {}


def _first(csa: Mapping[str, list], name: str) -> Any:
    items = csa.get(name, [])
    return items[0] if items else None
