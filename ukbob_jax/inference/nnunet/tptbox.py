"""What VIBESegmentator's program does around nnU-Net, step by step, as functions on volumes.

Source: TPTBox at f43f7fb5, `segmentation/VibeSeg/inference_nnunet.py` (`run_inference_on_file`) and what it calls.
In this order: `read_grid`, `Volume.reorient`, `rescale`, `tame`, `pad`, nnU-Net with the weights of `importance`, `unpad`,
`back`, `fill_holes` if asked for, `smallest_unsigned`. `before` and `after` are those around nnU-Net.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import ConfigError
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes import dataset_json
from ukbob_jax.volumes.volume import Volume

CONFIG = "inference_config.json"  # its keys overrule those of dataset.json
PADDING = 5  # voxels on every side
_SAME_MM = 1e-3  # spacings this close are not resampled
_BRIGHTEST, _TAMED = (
    10000,
    1000,
)  # images brighter than the first are scaled to the second, which float16 holds


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a model folder asks of the image's axes, and how it numbers what it writes.

    Attributes:
        orientation: where the axes point, such as "LPS"; empty: as they are stored.
        spacing_mm: along these axes; empty: as stored.
        renumber: pairs of a model's id and that which is written for it; empty: all are written as they are.
    """

    orientation: str = ""
    spacing_mm: tuple[float, ...] = ()
    renumber: tuple[tuple[int, int], ...] = ()


def read_grid(folder: str | os.PathLike) -> Grid:
    """Orientation, spacing and ids that a model folder's dataset.json, or its inference_config.json, names.

    `spacing` in dataset.json is z y x, `resolution_range` in either file x y z; the latter wins.

    Raises:
        FileError: no dataset.json, or not JSON.
        ConfigError: a value of another form, or labels that are renumbered by name.
    """
    folder = pathlib.Path(folder)
    said = dict(files.read_json(folder / dataset_json.NAME))
    own = dict(files.read_json(folder / CONFIG)) if (folder / CONFIG).exists() else {}
    orientation = own.get("model_expected_orientation", said.get("orientation", ""))
    spacing = own.get("resolution_range", said.get("resolution_range"))
    if spacing is None:
        spacing = list(said.get("spacing") or ())[::-1]
    where = f"{folder / dataset_json.NAME} or {CONFIG}"
    renumber = _renumbering(folder / CONFIG, own.get("labels", {}))
    return Grid(_axes(where, orientation), _three(where, spacing), renumber)


def before(image: Volume, grid: Grid) -> Volume:
    """The image `x y z` that nnU-Net gets, of one as it is stored."""
    turned = image.reorient(grid.orientation) if grid.orientation else image
    return pad(tame(rescale(turned, grid.spacing_mm) if grid.spacing_mm else turned))


def after(labels: Volume, image: Volume, grid: Grid, fill: bool = False, keep_size: bool = False) -> Volume:
    """The label map of an image `x y z` as it is stored, from nnU-Net's labels of `before(image, ...)`.

    Args:
        labels: on the padded grid.
        image: as stored.
        grid: says how labels are numbered.
        fill: call `fill_holes`.
        keep_size: leave the labels at the model's spacing, in its orientation.
    """
    found = unpad(labels)
    found = found if keep_size else back(found, image)
    array = renumber(fill_holes(found.array) if fill else found.array, grid.renumber)
    return dataclasses.replace(found, array=smallest_unsigned(array))


def rescale(image: Volume, spacing_mm: Sequence[float]) -> Volume:
    """Resample an image `x y z` by cubic splines, keeping its dtype and the centre of its first voxel.

    Integer images are rounded and may overshoot; the border value repeats. Spacings within 1e-3 mm: as it is.
    n_out = rint(n_in * s_in / s_out), half to even.

    Args:
        image: any real dtype of at least 32 bits or integers.
        spacing_mm: along the axes of `image`.
    """
    from scipy import ndimage

    old, new = np.round(affines.spacing(image.affine), 7), np.asarray(spacing_mm, np.float64)
    if np.isclose(new, old, atol=_SAME_MM).all():
        return image
    shape = tuple(int(n) for n in np.rint(np.asarray(image.shape) * old / new))
    affine = image.affine.copy()
    affine[:3, :3] *= new / affines.spacing(image.affine)
    ratio = affines.spacing(affine) / affines.spacing(image.affine)  # parallel grids: one factor per axis
    array = ndimage.affine_transform(image.array, ratio, 0.0, shape, order=3, mode="nearest")
    return dataclasses.replace(image, array=array, affine=affine)


def tame(image: Volume) -> Volume:
    """Scale an image that is brighter than 10000 to a maximum of 1000; others stay."""
    brightest = image.array.max()
    if brightest <= _BRIGHTEST:
        return image
    return dataclasses.replace(image, array=image.array / (brightest / _TAMED))


def pad(image: Volume, voxels: int = PADDING) -> Volume:
    """The image with so many voxels mirrored at each of its faces, the outermost voxel not repeated."""
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, float(voxels))
    return dataclasses.replace(image, array=np.pad(image.array, voxels, mode="reflect"), affine=affine)


def unpad(labels: Volume, voxels: int = PADDING) -> Volume:
    """Undo `pad`."""
    x, y, z = labels.shape
    return labels.crop((voxels,) * 3, (x - 2 * voxels, y - 2 * voxels, z - 2 * voxels))


def importance(patch_size: Sequence[int]) -> np.ndarray:
    """Weight of each voxel of a tile, float32, of the shape of a tile.

    A Gaussian of an eighth of the tile, rounded to float16 before it is scaled to 1000. Its values are below 1e-3, so
    few steps are left of them, and all that vanish (the tile's rim) get the smallest one that does not.
    """
    from scipy import ndimage

    peak = np.zeros(tuple(patch_size))
    peak[tuple(n // 2 for n in patch_size)] = 1
    rounded = ndimage.gaussian_filter(peak, [n / 8 for n in patch_size], mode="constant").astype(np.float16)
    weights = (rounded / rounded.max() * np.float16(1000)).astype(np.float16)
    weights[weights == 0] = weights[weights > 0].min()
    return weights.astype(np.float32)


def back(labels: Volume, image: Volume) -> Volume:
    """The label map on the grid of `image`: the nearest voxel in the world, the border repeated outside."""
    from scipy import ndimage

    matrix = np.linalg.inv(labels.affine) @ image.affine
    array = ndimage.affine_transform(labels.array, matrix, output_shape=image.shape, order=0, mode="nearest")
    return dataclasses.replace(image, array=array)


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Fill background that one label encloses with this label, `x y z`; lower ids first.

    Background is connected through faces of voxels.
    """
    from scipy import ndimage

    filled = labels.copy()
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            part = filled[box]  # holes lie within the label's box; a view
            part[ndimage.binary_fill_holes(part == number) & (part == 0)] = number
    return filled


def renumber(labels: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """The labels with other ids, all at once; ids that are in no pair stay. uint16."""
    lookup = np.arange(1 + max([int(labels.max()), *(max(pair) for pair in pairs)]), dtype=np.uint16)
    for old, new in pairs:
        lookup[old] = new
    return lookup[labels]


def smallest_unsigned(labels: np.ndarray) -> np.ndarray:
    """The labels as the first of uint8, uint16, uint32 that holds the highest."""
    return labels.astype(np.min_scalar_type(int(labels.max())))


def _axes(where: str, orientation: Any) -> str:
    try:
        axes = "".join(orientation)
    except TypeError:
        axes = "?"
    if axes and sorted("RLAPSI".find(axis) // 2 for axis in axes) != [0, 1, 2]:
        raise ConfigError(
            f'{where}: orientation is {orientation!r}; expected three axes, as ["R", "A", "S"].'
        )
    return axes


def _three(where: str, spacing: Any) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in spacing)
    except (TypeError, ValueError):
        values = (np.nan,)
    if values and (len(values) != 3 or not all(0 < value < np.inf for value in values)):
        raise ConfigError(f"{where}: spacing is {spacing!r}; expected three positive numbers, mm.")
    return values


def _renumbering(path: pathlib.Path, labels: Any) -> tuple[tuple[int, int], ...]:
    """The pairs of a table id -> id that are not the same; the program reads names by tables of its own."""
    pairs = labels.items() if isinstance(labels, dict) else [("labels", labels)]
    changed = [(str(old), str(new)) for old, new in pairs if str(old) != str(new)]
    if wrong := [pair for pair in changed if not all(id_.isdecimal() and int(id_) < 2**16 for id_ in pair)]:
        old, new = wrong[0]
        raise ConfigError(
            f"{path}: its labels renumber {old} to {new}, and only numbers are read here. Write both as numbers, or "
            "remove the key and map the ids where the labels are read."
        )
    return tuple((int(old), int(new)) for old, new in changed)
