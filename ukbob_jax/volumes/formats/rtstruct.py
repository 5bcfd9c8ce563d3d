"""DICOM RTSTRUCT contours as masks on an image's grid."""

import os
import pathlib
from typing import Any

import numpy as np

from ukbob_jax.errors import FileError, GeometryError, ValuesError
from ukbob_jax.volumes.formats import is_dicom, library
from ukbob_jax.volumes.volume import Volume

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_IN_PLANE = 0.1  # voxels that a contour's points may lie off one slice


def is_rtstruct(path: pathlib.Path) -> bool:
    """Whether the file is an RTSTRUCT."""
    if not (path.is_file() and is_dicom(path)):
        return False
    pydicom = library("pydicom", path)
    return str(pydicom.dcmread(path, specific_tags=["SOPClassUID"]).get("SOPClassUID", "")) == SOP_CLASS


def read_masks(path: str | os.PathLike, image: Volume) -> dict[str, Volume]:
    """Each structure's closed contours as a mask on the grid of `image`.

    A voxel is inside where its centre lies within an odd number of the contours of its slice, so that a contour
    within another cuts a hole.

    Args:
        path: the RTSTRUCT.
        image: gives the grid; contours must lie in its slices.
    Returns:
        Name of the structure to uint8 `x y z`, 0 and 1.
    Raises:
        FileError: no RTSTRUCT, damaged, or pydicom is not installed.
        GeometryError: contours that lie between the slices, across them, or outside the image.
    """
    path = pathlib.Path(path)
    if not is_rtstruct(path):
        raise FileError(f"{path}: no DICOM RTSTRUCT.")
    found = library("pydicom", path).dcmread(path)
    names = {int(roi.ROINumber): str(roi.ROIName) for roi in found.StructureSetROISequence}
    to_voxel = np.linalg.inv(image.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    masks = {}
    for roi in found.get("ROIContourSequence", []):
        name = names.get(int(roi.ReferencedROINumber), str(roi.ReferencedROINumber))
        mask = np.zeros(image.shape, bool, order="F")
        for contour in roi.get("ContourSequence", []):
            if contour.ContourGeometricType in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
                _fill(mask, points @ to_voxel[:3, :3].T + to_voxel[:3, 3], f"{path}: {name}")
        masks[name] = Volume(mask.astype(np.uint8), image.affine, image.codes, image.header)
    return masks


def read_labels(path: str | os.PathLike, image: Volume) -> tuple[Volume, dict[int, str]]:
    """All structures as one label map, ids from 1 in the order of the file, and their names.

    Raises:
        ValuesError: structures overlap; or there is none.
        FileError, GeometryError: as `read_masks`.
    """
    masks = read_masks(path, image)
    if not masks:
        raise ValuesError(f"{path}: no structure with contours.")
    array = np.zeros(image.shape, np.uint8 if len(masks) < 256 else np.uint16, order="F")
    names = dict(enumerate(masks, 1))
    for i, name in names.items():
        inside = masks[name].array != 0
        if (array[inside] != 0).any():
            others = ", ".join(names[int(n)] for n in np.unique(array[inside]) if n)
            raise ValuesError(
                f"{path}: structure {name} overlaps {others}; one label map cannot hold them. Read them as masks "
                "with volumes.formats.rtstruct.read_masks."
            )
        array[inside] = i
    return Volume(array, image.affine, image.codes, image.header), names


def _fill(mask: np.ndarray, points: np.ndarray, name: str) -> None:
    """Exchange inside and outside of one contour, `n 3` voxel coordinates, in its slice of `mask`."""
    from matplotlib.path import Path as Polygon  # here, because few read contours and it loads slowly

    axis = int(np.ptp(points, axis=0).argmin())
    level = float(points[:, axis].mean())
    k = round(level)
    if np.abs(points[:, axis] - k).max() > _IN_PLANE:
        raise GeometryError(
            f"{name}: a contour lies at slice {level:.2f}, between or across slices of the image; give its own image."
        )
    if not 0 <= k < mask.shape[axis]:
        raise GeometryError(
            f"{name}: a contour lies at slice {k}, the image has {mask.shape[axis]}; give its own image."
        )
    plane: Any = np.moveaxis(mask, axis, 0)[k]
    flat = np.delete(points, axis, 1)
    low = np.maximum(np.floor(flat.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(flat.max(axis=0)).astype(int) + 1, plane.shape)
    if (low >= high).any():
        return
    centres = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, 2)
    inside = Polygon(flat).contains_points(centres)
    plane[low[0] : high[0], low[1] : high[1]] ^= inside.reshape(high - low)
