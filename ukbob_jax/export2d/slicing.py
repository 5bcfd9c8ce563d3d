"""Volumes as stacks of slices along an axis, turned as radiologists see them, and back; grey values as 8 bits.

A stack is `n h w`: slice, row, column. Along x rows run from the head down and columns from back to front; along y and z
the patient's right is on the left, the head or the front up: `volumes.slices.slice_for_display`, all slices at once.
"""

from typing import NamedTuple

import numpy as np

from ukbob_jax.export2d.options import Export2dOptions
from ukbob_jax.volumes import resample

BLOCK = 2**16  # voxels that become grey at a time, in the processor's cache
# Per axis: the volume's axes as n h w, and which of h and w run backwards
_TURNS = {"x": ((0, 2, 1), (True, False)), "y": ((1, 2, 0), (True, True)), "z": ((2, 1, 0), (True, True))}


class Plane(NamedTuple):
    """How the slices along one axis lie on the volume's grid.

    Attributes:
        axis: that is cut.
        slices: their number.
        size: voxels of a slice, rows and columns.
        spacing_mm: of its voxels.
        pixel_mm: of its pixels, which are square, or None: a pixel is a voxel.
    """

    axis: str
    slices: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    pixel_mm: float | None

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of a slice, rows and columns."""
        if self.pixel_mm is None:
            return self.size
        h, w = resample.grid_size(self.size, np.array(self.spacing_mm), np.full(2, self.pixel_mm))
        return h, w

    @property
    def ratio(self) -> float:
        """Short side by long side."""
        return min(self.shape) / max(self.shape)

    def positions(self) -> list[np.ndarray]:
        """The voxel (fractional) at which each slice, row and column lies."""
        steps = [s / self.pixel_mm if self.pixel_mm else 1.0 for s in self.spacing_mm]
        return [np.arange(self.slices), *(np.arange(n) / step for n, step in zip(self.shape, steps))]


def plane(axis: str, shape: tuple[int, ...], spacing_mm: tuple[float, ...], pixels: str) -> Plane:
    """The slices of a volume of `shape` (x y z) along `axis`; "isotropic" pixels have the finer spacing of the two."""
    n, h, w = _TURNS[axis][0]
    spacing = (float(spacing_mm[h]), float(spacing_mm[w]))
    square = pixels == "raw" or np.isclose(*spacing, rtol=1e-4)
    return Plane(axis, shape[n], (shape[h], shape[w]), spacing, None if square else min(spacing))


def stack(volume: np.ndarray, axis: str) -> np.ndarray:
    """A view of `x y z` as `n h w`."""
    order, (rows, columns) = _TURNS[axis]
    return volume.transpose(order)[:, :: -1 if rows else 1, :: -1 if columns else 1]


def unstack(slices: np.ndarray, axis: str) -> np.ndarray:
    """A view of `n h w` as `x y z`: undoes `stack`."""
    order, (rows, columns) = _TURNS[axis]
    return slices[:, :: -1 if rows else 1, :: -1 if columns else 1].transpose(np.argsort(order))


def cut(volume: np.ndarray, found: Plane, order: int) -> np.ndarray:
    """The slices of `x y z` as `n h w`, in memory in this order.

    Args:
        order: 0: labels, by the nearest voxel; 1: images, linear (float32 if anything is resampled).
    """
    slices = stack(volume, found.axis)
    if found.pixel_mm is not None:
        slices = resample.along_axes(slices, found.positions(), order)
    return np.ascontiguousarray(slices)


def uncut(slices: np.ndarray, found: Plane) -> tuple[np.ndarray, int]:
    """The label map `x y z` of which `slices` (n h w) were cut, each voxel from a pixel whose nearest it was.

    Returns:
        The map, and the number of rows and columns of voxels that no pixel was nearest to: these are 0.
    """
    if found.pixel_mm is None:
        return unstack(slices, found.axis), 0
    lost = 0
    for axis, (positions, n) in enumerate(zip(found.positions()[1:], found.size), 1):
        nearest = np.rint(np.clip(positions, 0, n - 1)).astype(np.intp)
        pixel = np.full(n, -1)
        pixel[nearest[::-1]] = np.arange(len(nearest))[::-1]
        slices = slices.take(pixel, axis)
        gone = np.flatnonzero(pixel < 0)
        slices[(slice(None),) * axis + (gone,)] = 0
        lost += len(gone)
    return unstack(slices, found.axis), lost


def grey(image: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Map low..high to 0..255, rounded, clipped; 0 throughout where both are equal. uint8 of the same shape.

    Args:
        low, high: numbers, or arrays that broadcast: one pair per slice.
    """
    least = np.asarray(low, np.float32)
    span = np.asarray(high, np.float32) - least
    factor = np.where(span > 0, np.float32(255) / np.where(span > 0, span, 1), np.float32(0)).astype(
        np.float32
    )
    out = np.empty(image.shape, np.uint8)
    step = max(1, BLOCK * len(image) // max(image.size, 1))
    for first in range(0, len(image), step):
        part = slice(first, first + step)
        scaled = np.subtract(image[part], least[part] if least.ndim else least, dtype=np.float32)
        scaled *= factor[part] if factor.ndim else factor
        np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
        np.copyto(out[part], scaled, casting="unsafe")
    return out


def slice_range(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value of each slice, `n 1 1`."""
    return slices.min((1, 2), keepdims=True), slices.max((1, 2), keepdims=True)


class Greys:
    """The grey slices of a volume along any axis.

    Args:
        volume: `x y z`.
        options: its `intensity`, `window` and `pixels` count.
    """

    def __init__(self, volume: np.ndarray, options: Export2dOptions) -> None:
        self.volume, self.bounds = volume, None
        if options.intensity == "window":
            self.bounds = options.window[0], options.window[1]
        elif options.intensity == "volume":
            self.bounds = float(volume.min()), float(volume.max())
        self.done = None  # the volume in grey, where every slice along every axis is just a part of it
        if self.bounds and options.pixels == "raw":
            self.done = grey(volume, *self.bounds)

    def slices(self, found: Plane) -> np.ndarray:
        """The slices of a plane, `n h w`, uint8."""
        if self.done is not None:
            return cut(self.done, found, 1)
        slices = cut(self.volume, found, 1)
        return grey(slices, *(self.bounds or slice_range(slices)))
