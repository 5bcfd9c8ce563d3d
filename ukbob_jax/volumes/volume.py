"""A volume: voxels and where they lie in the body."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from nibabel import orientations

from ukbob_jax.errors import GeometryError, ValuesError
from ukbob_jax.volumes import affine as affines
from ukbob_jax.volumes import resample
from ukbob_jax.volumes.geometry import HeaderGeometry

ORDERS = (resample.NEAREST, resample.LINEAR, resample.CUBIC)
LONGEST = 32767  # voxels along an axis, of NIfTI-1 and of the store


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their voxel-to-world matrix; every method returns a new volume and moves the affine along.

    Attributes:
        array: x y z, or x y z c.
        affine: (4, 4) float64, voxel index to RAS+ millimetres.
        codes: NIfTI (sform_code, qform_code), repeated when the volume is written; 1 is scanner space.
        header: how the file it came from says where it lies, repeated when the volume is written; None as soon as
            the grid is another.

    Raises:
        GeometryError: the array is not 3-D or 4-D, has an empty axis, or the affine is not finite and invertible.
    """

    array: np.ndarray
    affine: np.ndarray
    codes: tuple[int, int] = (1, 1)
    header: HeaderGeometry | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", np.asarray(self.array))
        object.__setattr__(self, "affine", np.array(self.affine, np.float64))
        if self.array.ndim not in (3, 4) or 0 in self.array.shape:
            raise GeometryError(
                f"A volume is (x, y, z) or (x, y, z, c) with no empty axis; got {self.array.shape}."
            )
        affines.check(self.affine, "Volume")
        if self.header and not self.header.describes(self.affine, self.shape, self.codes):
            object.__setattr__(self, "header", None)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        size = " x ".join(str(n) for n in self.array.shape)
        return f"Volume({size} {self.array.dtype}, {spacing} mm, {self.orientation})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        return self.array.shape[:3]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis, mm."""
        x, y, z = affines.spacing(self.affine).tolist()
        return x, y, z

    @property
    def orientation(self) -> str:
        """Where each voxel axis points, such as "RAS": towards right, anterior, superior."""
        return "".join(orientations.aff2axcodes(self.affine))

    def to_ras(self) -> "Volume":
        """The same voxels with axes nearest to right, anterior, superior; flips and transpositions only."""
        return self.reorient("RAS")

    def reorient(self, axes: Sequence[str]) -> "Volume":
        """The same voxels with axes nearest to the three directions named; flips and transpositions only.

        Args:
            axes: where each axis is to point, such as "LPS" or ("L", "P", "S").
        Raises:
            ValuesError: not one letter of each pair R L, A P, S I.
        """
        if sorted("RLAPSI".find(axis) // 2 for axis in axes) != [0, 1, 2]:
            raise ValuesError(
                f"Orientation {axes!r}: expected one letter of each pair R L, A P, S I, as in RAS."
            )
        wanted = orientations.axcodes2ornt(tuple(axes))
        change = orientations.ornt_transform(orientations.io_orientation(self.affine), wanted)
        array = orientations.apply_orientation(self.array, change)
        affine = self.affine @ orientations.inv_ornt_aff(change, self.shape)
        return dataclasses.replace(self, array=array, affine=affine)

    def resample(self, spacing_mm: float | Sequence[float], order: int) -> "Volume":
        """The volume at another spacing.

        The first voxel centre stays where it is, axes keep their directions, and
        n_out = round_half_even((n_in - 1) * s_in / s_out + 1); the border value repeats beyond the last voxel.

        Args:
            spacing_mm: one number, or one per axis, mm.
            order: 0 nearest (labels; dtype kept), 1 linear or 3 cubic spline (images; float32).
        Raises:
            ValuesError: a spacing that is not positive, or another order.
            GeometryError: an axis of more than 32767 voxels, which no NIfTI file holds.
        """
        _check_order(order, ORDERS)
        target = np.broadcast_to(np.asarray(spacing_mm, np.float64), (3,))
        if not (np.isfinite(target) & (target > 0)).all():
            raise ValuesError(
                f"Cannot resample to {spacing_mm} mm; give one positive spacing, or one per axis."
            )
        ratio = target / affines.spacing(self.affine)
        shape = resample.grid_size(self.shape, affines.spacing(self.affine), target)
        if max(shape) > LONGEST:
            raise GeometryError(
                f"Resampling to {spacing_mm} mm makes {shape} voxels, at most {LONGEST} an axis."
            )
        affine = self.affine @ np.diag([*ratio, 1.0])
        if order == resample.CUBIC:
            array = self._each_channel(lambda channel: resample.cubic(channel, ratio, shape))
        else:
            positions = [r * np.arange(n) for r, n in zip(ratio, shape)]
            array = self._each_channel(lambda channel: resample.along_axes(channel, positions, order))
        return dataclasses.replace(self, array=array, affine=affine)

    def resample_like(self, reference: "Volume", order: int) -> "Volume":
        """The volume on the grid of `reference`, by world coordinates; its own border value repeats outside it.

        Args:
            reference: gives shape, affine and header codes; its voxels are not used.
            order: 0 nearest (labels; dtype kept), 1 linear (images; float32).
        Raises:
            ValuesError: another order.
        """
        _check_order(order, ORDERS[:2])
        matrix = np.linalg.solve(self.affine, reference.affine)
        array = self._each_channel(
            lambda channel: resample.by_matrix(channel, matrix, reference.shape, order)
        )
        return dataclasses.replace(reference, array=array)

    def crop(self, start: Sequence[int], size: Sequence[int], fill: float = 0) -> "Volume":
        """The box of `size` voxels from voxel `start`; what lies outside the volume is `fill`.

        A negative start or a box past the end therefore pads.

        Raises:
            GeometryError: `start` or `size` are not three integers, or a size is below 1.
        """
        first, extent = np.asarray(start), np.asarray(size)
        if first.shape != (3,) or extent.shape != (3,) or first.dtype.kind not in "iu" or extent.min() < 1:
            raise GeometryError(
                f"A crop needs three integer starts and positive sizes; got {first} and {extent}."
            )
        array = np.full((*extent.tolist(), *self.array.shape[3:]), fill, self.array.dtype)
        low, high = np.maximum(first, 0), np.minimum(first + extent, self.shape)
        if (low < high).all():
            inner = tuple(slice(a, b) for a, b in zip(low - first, high - first))
            array[inner] = self.array[tuple(slice(a, b) for a, b in zip(low, high))]
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ first
        return dataclasses.replace(self, array=array, affine=affine)

    def _each_channel(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """`function` (x y z -> x y z) on the array, or on each of its channels in turn, which bounds memory."""
        if self.array.ndim == 3:
            return function(self.array)
        channels = self.array.shape[3]
        first = function(self.array[..., 0])
        # each channel in one piece of memory
        out = np.empty((*first.shape, channels), first.dtype, order="F")
        out[..., 0] = first
        for c in range(1, channels):
            out[..., c] = function(self.array[..., c])
        return out


def _check_order(order: int, known: Sequence[int]) -> None:
    if order not in known:
        names = ", ".join(
            f"{number} is {name}" for number, name in zip(known, ("nearest", "linear", "a cubic spline"))
        )
        raise ValuesError(f"Resampling order {order!r} is not known; {names}.")
