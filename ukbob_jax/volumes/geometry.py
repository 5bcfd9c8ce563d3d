"""Where a NIfTI header says its voxels lie, kept as stored.

Readers follow different rules: nibabel takes the sform whenever its code is set, ITK the qform unless the sform's
code is 1, and spacing from pixdim. A label map lies on its image in all of them only if its header says the same.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

FIELDS = (
    "sform_code", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class HeaderGeometry:
    """The fields of a header that place the voxels, and the grid they were read as.

    Attributes:
        fields: name to value, those of `FIELDS`.
        pixdim: handedness of the qform and spacing of x, y, z.
        unit: NIfTI code of the unit of length, 0 to 3.
        affine: (4, 4) mm, as `Volume.affine`.
        shape: voxels along x, y, z.
    """

    fields: Mapping[str, Any]
    pixdim: tuple[float, float, float, float]
    unit: int
    affine: np.ndarray
    shape: tuple[int, int, int]

    def describes(self, affine: np.ndarray, shape: tuple[int, ...], codes: tuple[int, int]) -> bool:
        """Whether this is still the grid that the header was read as."""
        stored = int(self.fields["sform_code"]), int(self.fields["qform_code"])
        return tuple(shape) == self.shape and stored == tuple(codes) and np.array_equal(affine, self.affine)

    def apply(self, header: Any) -> None:
        """Set the fields in a nibabel NIfTI header."""
        for name, value in self.fields.items():
            header[name] = value
        header["pixdim"][:4] = self.pixdim
        header["xyzt_units"] = self.unit


def read_geometry(raw: Any, affine: np.ndarray, shape: tuple[int, ...]) -> HeaderGeometry | None:
    """The geometry in the fields of a nibabel header; None where its spacing cannot be repeated."""
    pixdim = np.asarray(raw["pixdim"][:4], np.float64)
    if not (np.isfinite(pixdim).all() and (pixdim[1:] > 0).all()):
        return None
    fields = {name: np.array(raw[name], copy=True) for name in FIELDS}
    if not all(np.isfinite(value).all() for value in fields.values()):
        return None
    handed, x, y, z = pixdim.tolist()
    i, j, k = shape[:3]
    return HeaderGeometry(fields, (handed, x, y, z), int(raw["xyzt_units"]) & 7, affine, (i, j, k))
