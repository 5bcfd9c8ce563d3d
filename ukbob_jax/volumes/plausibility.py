"""Can a scan be what its header says, and is it like those a network was trained on?

| what | told by `check` | refused by `segment` and `predict`, unless unusual scans are accepted |
|---|---|---|
| affine is exactly the identity: 1 mm, origin in the first voxel | yes | where training has no such spacing |
| spacing along an axis, mm | | more than `SPACING_FACTOR` below or above the range of training |
| width or depth of the field of view, x y | | more than `EXTENT_FACTOR` times the largest of training |

Crops pass: a smaller field of view is never refused, nor a longer one along z, which differs with how much of the
body is scanned. Where the training set is not known, nothing is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.volumes import affine as affines

SPACING_FACTOR = 3.0  # shifted scanners differ by up to 2; a lost header or cm for mm by more
EXTENT_FACTOR = 2.0  # people's widths differ by less
SAME_SPACING = 0.1  # of a mm: spacings this near to 1 mm agree with an identity affine
IDENTITY = "its affine is exactly the identity, as np.eye(4) leaves it: 1 mm voxels and an orientation that nobody measured"


def doubts(affine: np.ndarray) -> list[str]:
    """Return what is doubtful about an affine `4 4` by itself."""
    return [IDENTITY] if np.array_equal(affine, np.eye(4)) else []


def describe_training(spacings_mm: np.ndarray, shapes: np.ndarray) -> dict[str, list[list[float]]]:
    """Return what `compare` needs to know of the subjects a network was trained on, JSON values.

    Args:
        spacings_mm: `n 3`.
        shapes: `n 3`, voxels.
    Returns:
        "spacing_mm" and "extent_mm" (of the field of view), each `2 3`: the smallest and largest, x y z.
    """
    extents = spacings_mm * shapes
    return {
        "spacing_mm": [spacings_mm.min(0).tolist(), spacings_mm.max(0).tolist()],
        "extent_mm": [extents.min(0).tolist(), extents.max(0).tolist()],
    }


def compare(affine: np.ndarray, shape: Sequence[int], training: Mapping[str, Any]) -> list[str]:
    """Return why a scan is unlike those of training, in words; empty: it is not, or training is not known.

    Args:
        affine: `4 4`, in RAS.
        shape: voxels, x y z.
        training: as `describe_training`; entries may be missing.
    """
    spacing, found = affines.spacing(affine), []
    if "spacing_mm" in training:
        low, high = np.asarray(training["spacing_mm"], np.float64)
        if not ((low <= 1 + SAME_SPACING) & (high >= 1 - SAME_SPACING)).all():
            found += doubts(affine)
        if ((spacing < low / SPACING_FACTOR) | (spacing > high * SPACING_FACTOR)).any():
            found.append(f"its voxels are {_mm(spacing)}, those of training {_mm(low)} to {_mm(high)}")
    if "extent_mm" in training:
        extent, (_, high) = spacing * shape[:3], np.asarray(training["extent_mm"], np.float64)
        if (extent > high * EXTENT_FACTOR)[:2].any():
            found.append(f"it covers {_mm(extent)}, the largest of training {_mm(high)}")
    return found


def _mm(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths) + " mm"
