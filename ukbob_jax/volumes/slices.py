"""Slices of a volume as they are shown: turned for the viewer, and in grey values from 0 to 1.

Volumes come as `x y z` in RAS. Slices are shown as radiologists see them: the patient's right on the viewer's left,
the head or the front up.
"""

import numpy as np

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # plane -> axis of a volume that it cuts


def slice_for_display(array: np.ndarray, plane: str, index: int) -> np.ndarray:
    """Take one slice of `x y z` and turn it for display.

    Args:
        array: `x y z` in RAS.
        plane: "sagittal", "coronal" or "axial".
        index: voxel along the axis that the plane cuts.
    Returns:
        `rows columns`: from top to bottom, from the viewer's left to right.
    """
    slices = np.take(array, index, axis=PLANES[plane])  # y z | x z | x y
    if plane != "sagittal":
        slices = slices[::-1]  # patient's right to the viewer's left
    return slices.T[::-1]


def rescale_intensity(image: np.ndarray) -> np.ndarray:
    """Rescale an image of any shape so that its 1st and 99.5th percentile become 0 and 1, and clip to 0..1."""
    low, high = np.percentile(image, (1, 99.5))
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)
