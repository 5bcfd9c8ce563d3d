"""Diffusion gradients beside a NIfTI file, as FSL writes them: .bval and .bvec, text.

Directions in a .bvec lie along the voxel axes of its image, x negated where the affine's determinant is positive (FSL, BIDS
1.10). They are turned into the world once, by the file's own affine, so that no flip or transposition of voxels afterwards
touches them.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import FileError, MismatchError, ValuesError

UNIT = 0.02  # how far from 1 the length of a direction may be: text has a few digits


class Gradients(NamedTuple):
    """Of the volumes of a series, in order.

    Attributes:
        b_s_mm2: diffusion weighting, s/mm², float64 `n`.
        directions: unit vectors in the world, towards right, anterior, superior, float64 `n 3`; zeros where there is none.
    """

    b_s_mm2: np.ndarray
    directions: np.ndarray


def read(bval: pathlib.Path, bvec: pathlib.Path, affine: np.ndarray, volumes: int) -> Gradients:
    """Read the gradients of an image.

    Args:
        bval: numbers, in rows or columns.
        bvec: three rows of numbers, or as many rows of three.
        affine: of the image as it lies in its file, voxel to RAS+ mm, `4 4`.
        volumes: of the image.
    Raises:
        FileError: missing, or not such numbers.
        MismatchError: another number of volumes.
        ValuesError: a negative weighting, or a direction that is no unit vector.
    """
    weights = _numbers(bval).ravel()
    vectors = _numbers(bvec)
    vectors = vectors.T if vectors.shape[0] == 3 else vectors  # of 3 by 3 numbers, rows are x, y, z
    if vectors.shape[1] != 3:
        raise FileError(
            f"{bvec}: {vectors.shape[0]} rows of {vectors.shape[1]}; expected three rows, or rows of three."
        )
    for path, found in ((bval, len(weights)), (bvec, len(vectors))):
        if found != volumes:
            raise MismatchError(
                f"{path}: {found} gradients, but its image has {volumes} volumes. Correct it."
            )
    if not (weights >= 0).all():
        raise ValuesError(
            f"{bval}: b is {weights.min():g} s/mm² in volume {weights.argmin()}; expected 0 or more."
        )
    vectors = np.where(
        np.isfinite(vectors), vectors, 0.0
    )  # some programs write NaN where there is no direction
    lengths = np.linalg.norm(vectors, axis=1)
    none = (lengths == 0) | (weights == 0)
    odd = np.abs(lengths - 1) > UNIT
    if (wrong := odd & ~none).any():
        first = int(wrong.argmax())
        raise ValuesError(
            f"{bvec}: the direction of volume {first} has length {lengths[first]:.4g}, expected 1 at b = {weights[first]:g} "
            "s/mm². Scale b by its square and normalise it."
        )
    return Gradients(
        weights, _to_world(vectors / np.where(none, 1.0, lengths)[:, None], affine) * ~none[:, None]
    )


def _to_world(vectors: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn unit vectors of a .bvec, `n 3`, into the world."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    sign = -1.0 if np.linalg.det(axes) > 0 else 1.0
    turned = (vectors * [sign, 1.0, 1.0]) @ axes.T
    lengths = np.linalg.norm(turned, axis=1, keepdims=True)  # 1 but for a slight shear
    return turned / np.where(lengths > 0, lengths, 1.0)


def _numbers(path: pathlib.Path) -> np.ndarray:
    """The numbers of a text file, one row a line."""
    try:
        rows = [line.replace(",", " ").split() for line in files.read_text(path).splitlines() if line.strip()]
        found = np.array([[float(word) for word in row] for row in rows], np.float64)
    except ValueError as error:
        raise FileError(
            f"{path}: expected rows of numbers, all of one length ({error}). Correct it."
        ) from error
    if found.ndim != 2 or not found.size:
        raise FileError(f"{path}: no numbers in it.")
    return found
