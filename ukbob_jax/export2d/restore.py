"""The way back: masks of an export to the label map they were cut from, voxel by voxel."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.export2d import naming, slicing
from ukbob_jax.export2d.naming import ImageName
from ukbob_jax.export2d.writing import Plan


class Restored(NamedTuple):
    """A label map made of masks.

    Attributes:
        labels: `x y z`, uint8, ids of the store's label set.
        affine: `4 4`, voxel to world in mm.
        lost: voxels of exported classes that no mask shows, for what was left out of the export: small instances, slices
            of bad aspect, or without contrast. 0: the map is that of the store, in its exported classes.
    """

    labels: np.ndarray
    affine: np.ndarray
    lost: int


def label_map(folder: str | os.PathLike, subject: str, axes: Sequence[str] = ()) -> Restored:
    """Put the masks of a subject together.

    Each axis alone holds all of the label map, less what was left out; together they lose less.

    Args:
        folder: that was exported.
        subject: of the store.
        axes: to read; empty: all that were exported.
    Raises:
        ConfigError: an axis was not exported.
        FileError: no such export or subject, or a mask is missing or damaged.
        MismatchError: masks overlap, or axes disagree: files were changed.
    """
    plan = Plan.read(folder)
    record = plan.record(subject)
    if unknown := set(axes) - set(record["axes"]):
        raise ConfigError(f"{folder}: not exported along {', '.join(unknown)}.")
    labels = np.zeros(record["shape"], np.uint8)
    for axis in axes or record["axes"]:
        found = _along(plan, record, axis)
        if ((labels > 0) & (found > 0) & (labels != found)).any():
            raise MismatchError(
                f"{folder}: masks of {subject} along {axis} disagree with those of other axes."
            )
        labels = np.where(found > 0, found, labels)
    lost = record["voxels"] - int(np.count_nonzero(labels))
    return Restored(labels, np.array(record["affine"]), lost)


def _along(plan: Plan, record: dict[str, Any], axis: str) -> np.ndarray:
    """The label map that the masks along one axis hold."""
    found = record["axes"][axis]
    plane = slicing.plane(axis, record["shape"], record["spacing_mm"], plan.options.pixels)
    slices = np.zeros((plane.slices, *plane.shape), np.uint8)
    for index, organs in found.get("images", ()):
        shown = [code for code in record["codes"] if index not in found["constant"][code]]
        if not shown:
            continue
        image = naming.image_stem(ImageName(shown[0], plan.options.dataset, record["subject"], axis, index))
        for organ, count in organs:
            of = plan.exported[organ]
            for number in range(count):
                name = naming.mask_stem(plan.options.style, image, of.four, of.name, number)
                mask = read_mask(pathlib.Path(plan.folder) / "masks" / f"{name}.png")
                if mask.shape != plane.shape or slices[index][mask].any():
                    raise MismatchError(
                        f"{plan.folder}: mask {name} has another shape or overlaps another mask."
                    )
                slices[index][mask] = organ
    return slicing.uncut(slices, plane)[0]


def read_mask(path: pathlib.Path) -> np.ndarray:
    """A mask as bool `h w`.

    Raises:
        FileError: missing or damaged.
    """
    try:
        with Image.open(path) as image:
            return np.array(image) > 0
    except (OSError, SyntaxError) as error:
        raise FileError(f"{path}: cannot be read ({error}).") from error
