"""How large every structure is and how bright the scan is inside it: JSON for programs, CSV for a spreadsheet."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.volumes.volume import Volume

PERCENTILES = (5, 25, 75, 95)
_OF_VALUES = ("mean", "sd", "median", *(f"p{p:02d}" for p in PERCENTILES), "min", "max")
COLUMNS = (
    "scan", "structure", "id", "voxels", "volume_mm3", "volume_ml", "touches_border", "contrast", *_OF_VALUES,
)  # fmt: skip


def measure(
    labels: Volume, image: np.ndarray, names: Mapping[int, str], contrasts: Sequence[str]
) -> dict[str, Any]:
    """Size and intensities of every structure.

    Args:
        labels: ids `x y z`.
        image: `x y z c` on the same voxels, in the scan's own units.
        names: id to name, with 0 the background, which is left out.
        contrasts: a name per channel.
    Returns:
        Name -> `id`, `n_voxels`, `volume` (mm3), `volume_ml`, `touches_border` (a voxel of it lies on a face of the scan,
        so that it may go on), `intensity` (the mean in the first contrast) and `intensities`: contrast -> mean, standard
        deviation (over n), median, percentiles (linear between voxels), least and greatest value. None where the structure
        is absent. `volume`, `intensity` and `n_voxels` are what TotalSegmentator's statistics.json calls so; unlike there,
        the volume of a structure that touches the border is not 0.
    """
    flat = labels.array.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat, np.arange(max(names) + 2), sorter=order)
    border = _touching(labels.array)
    along = labels.affine[:3, :3].T
    voxel_mm3 = float(abs(along[0] @ np.cross(along[1], along[2])))  # of straight axes without det's rounding
    values = image.reshape(-1, image.shape[-1])
    found = {}
    for i, name in sorted(names.items()):
        if not i:
            continue
        where = order[ends[i] : ends[i + 1]]
        inside = {contrast: _describe(values[where, c]) for c, contrast in enumerate(contrasts)}
        found[name] = {
            "id": i,
            "n_voxels": len(where),
            "volume": len(where) * voxel_mm3,
            "volume_ml": len(where) * voxel_mm3 / 1000,
            "touches_border": i in border,
            "intensity": inside[contrasts[0]]["mean"],
            "intensities": inside,
        }
    return found


def _touching(array: np.ndarray) -> set[int]:
    """Ids on the faces of the scan."""
    faces = [array.take(face, axis=axis) for axis in range(3) for face in (0, -1)]
    return set(np.unique(np.concatenate([face.ravel() for face in faces])).tolist())


def _describe(values: np.ndarray) -> dict[str, float | None]:
    """Of the values `n` in a structure."""
    if not len(values):
        return dict.fromkeys(_OF_VALUES)
    wide = values.astype(np.float64)
    low, *middle, high = np.percentile(wide, (0, 50, *PERCENTILES, 100)).tolist()
    return dict(zip(_OF_VALUES, (float(wide.mean()), float(wide.std()), *middle, low, high)))


def rows(scan: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per structure and contrast of what `measure` returns, with the columns of `COLUMNS`."""
    return [
        {
            "scan": scan,
            "structure": name,
            "id": one["id"],
            "voxels": one["n_voxels"],
            "volume_mm3": one["volume"],
            "volume_ml": one["volume_ml"],
            "touches_border": one["touches_border"],
            "contrast": contrast,
            **values,
        }
        for name, one in found.items()
        for contrast, values in one["intensities"].items()
    ]


def write_table(path: pathlib.Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """The rows of all scans as CSV.

    Args:
        path: of the file.
        found: scan -> what `measure` returns.
    Raises:
        FileError: the file cannot be written.
    """
    files.write_csv(path, COLUMNS, [row for scan, one in found.items() for row in rows(scan, one)])
