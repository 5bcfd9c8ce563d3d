"""A segmentation that spans a part of its image, on the whole image's grid."""

import numpy as np

from ukbob_jax.errors import MismatchError
from ukbob_jax.volumes.volume import Volume


def on_grid(label: Volume, image: Volume, name: str, image_name: str) -> Volume:
    """`label` surrounded by background to the shape of `image`; both in RAS, voxel on voxel.

    Raises:
        MismatchError: labelled voxels lie outside the image.
    """
    if label.shape == image.shape:
        return label
    affine = label.affine.copy()
    for axis, size in enumerate(label.shape):
        if size == 1:  # one slice says nothing of the distance between slices
            affine[:3, axis] = image.affine[:3, axis]
    offset = np.rint(np.linalg.solve(image.affine, affine)[:3, 3]).astype(int)
    placed = Volume(label.array, affine, label.codes).crop((-offset).tolist(), image.shape)
    lost = int((label.array != 0).sum()) - int((placed.array != 0).sum())
    if lost:
        raise MismatchError(
            f"{name}: {lost} labelled voxels lie outside {image_name}; give the image it was drawn on."
        )
    return placed
