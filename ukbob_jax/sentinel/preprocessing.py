"""From a scan and a mask to what a grader sees: crops around the mask, resized, with values near zero.

Axes: n crops, h w pixels of slices, x y z voxels, s pixels of a resized axis. Resizing is linear in the image: one matrix
per axis and crop (`resize_matrix`), so that crops of all sizes are one product.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError, MismatchError, ValuesError

Array = jax.Array | np.ndarray
SIZE = 256  # pixels of a resized slice
MARGIN = 20  # pixels around the mask, at inference
LEAST_MARGIN = 10  # in training, where margins are drawn
HU_WINDOW = (-200.0, 200.0)
MODALITIES = ("CT", "MR")
MR_RULES = ("percentile", "zscore")
IMAGE_SCALE = (0.5, 0.25)  # mean and deviation taken of the image, 0 to 1, as the released code does
MASK_SCALE = (0.5, 0.5)


class Window(NamedTuple):
    """The values that become 0 and 1; what lies beyond is clipped."""

    low: float
    high: float


def window(image: Array, modality: str = "CT", rule: str = "percentile") -> Window:
    """The window of a scan.

    CT: -200 to 200 HU. MR, of the voxels that are not 0: "percentile", from the 0.5th to the 99.5th; "zscore", mean
    less and plus two deviations, so that what the grader sees is (v - mean) / deviation clipped at 2.

    Args:
        image: of any shape.
        modality: "CT" or "MR".
        rule: of MR.
    Raises:
        ConfigError: an unknown modality or rule.
        ValuesError: no finite voxels.
    """
    if modality not in MODALITIES or rule not in MR_RULES:
        raise ConfigError(
            f"modality={modality!r}, rule={rule!r}: choose {' or '.join(MODALITIES)}, and {' or '.join(MR_RULES)}."
        )
    if modality == "CT":
        return Window(*HU_WINDOW)
    seen = np.asarray(image, np.float32)
    seen = seen[np.isfinite(seen) & (seen != 0)]
    if not seen.size:
        raise ValuesError("image: no voxel has a finite value other than 0; give the scan itself.")
    if rule == "percentile":
        low, high = np.percentile(seen, (0.5, 99.5))
    else:
        low, high = seen.mean() - 2 * seen.std(), seen.mean() + 2 * seen.std()
    return Window(float(low), float(max(high, low + 1e-6 * max(1.0, abs(low)))))


def resize_matrix(
    start: Array,
    stop: Array,
    length: int,
    size: int,
    valid: Array | int | None = None,
    xp: Any = jnp,
) -> Any:
    """Matrices n s length that resize `[start, stop)` of an axis of `length` pixels to `size` pixels.

    Pillow's bilinear filter: with scale r = (stop - start) / size the pixel i of the result is the mean of the pixels
    around c = start + (i + 1/2) r, weighted by a triangle of half width max(1, r), renormalised at the borders.

    Args:
        start, stop: n, pixels; they may lie outside the axis, where there is nothing: such rows are 0.
        valid: pixels from the axis' beginning that hold something, where the rest is padding; by default `length`.
        xp: numpy or jax.numpy, which works it out.
    """
    start, stop = (xp.asarray(a, xp.float32)[:, None, None] for a in (start, stop))
    ratio = (stop - start) / size
    # Measured from `start`, so that large coordinates cost no digits.
    centre = (xp.arange(size, dtype=xp.float32)[None, :, None] + 0.5) * ratio
    pixel = xp.arange(length, dtype=xp.float32)[None, None, :] - start
    weight = xp.maximum(0, 1 - xp.abs(pixel + 0.5 - centre) / xp.maximum(ratio, 1))
    end = xp.minimum(stop, length if valid is None else valid) - start
    weight = xp.where((pixel >= 0) & (pixel < end), weight, 0)
    total = weight.sum(-1, keepdims=True)
    return weight / xp.where(total > 0, total, 1)


def crop_box(mask: np.ndarray, margin: int | Sequence[int] = MARGIN) -> np.ndarray:
    """The crop of a mask of a slice as the released code cuts it: rows start and stop, columns start and stop.

    From the first mask pixel less the margin to the last plus the margin, that end not included, clipped; then the shorter
    side grows at both ends by half the difference, rounded down, clipped again. So it is not always square.

    Args:
        mask: h w.
        margin: pixels, of both axes or of each.
    Returns:
        int (4,).
    Raises:
        ValuesError: the mask is empty.
    """
    extents = []
    for axis in (1, 0):
        inside = np.flatnonzero(np.asarray(mask).any(axis))
        if not inside.size:
            raise ValuesError("mask: it is empty; an empty mask has no crop, and grade() gives it 0.")
        extents += [inside[0], inside[-1]]
    return crop_boxes(np.array([extents]), mask.shape, margin)[0]


def crop_boxes(extents: np.ndarray, shape: Sequence[int], margin: int | Sequence[int] = MARGIN) -> np.ndarray:
    """`crop_box` of many masks, n 4, from their first and last rows and columns (n 4) in slices of this shape."""
    margins = np.broadcast_to(np.asarray(margin), 2)
    first, last = extents[:, ::2], extents[:, 1::2]
    ends = np.asarray(shape)
    start, stop = np.maximum(first - margins, 0), np.minimum(last + margins, ends)
    length = stop - start
    grow = np.maximum(length[:, ::-1] - length, 0) // 2
    start, stop = np.maximum(start - grow, 0), np.minimum(stop + grow, ends)
    return np.stack([start[:, 0], stop[:, 0], start[:, 1], stop[:, 1]], -1).astype(np.int32)


def random_margins(rng: np.random.Generator, mask: np.ndarray, size: int = SIZE) -> tuple[int, int]:
    """Margins of training, drawn for rows and columns from 10 to half of what the mask leaves of `size` pixels."""
    drawn = []
    for axis in (1, 0):
        inside = np.flatnonzero(mask.any(axis))
        most = max(LEAST_MARGIN, (size - int(inside[-1] - inside[0])) // 2)
        drawn.append(int(rng.integers(LEAST_MARGIN, most + 1)))
    return drawn[0], drawn[1]


def prepare(
    image_slice: Array,
    mask_slice: Array,
    *,
    size: int = SIZE,
    margin: int | Sequence[int] = MARGIN,
    window: Sequence[float] = HU_WINDOW,
) -> jax.Array:
    """What the grader of slices sees of one slice, h w 2: image and mask, cropped, resized and normalised.

    Args:
        image_slice: rows, columns; HU, or what `window` is for.
        mask_slice: of the same shape; nonzero inside.
        size: h and w.
        margin: pixels around the mask, see `crop_box`.
        window: values that become 0 and 1 before (v - 0.5) / 0.25.
    Raises:
        MismatchError: the shapes differ.
        ValuesError: the mask is empty.
    """
    image, mask = np.asarray(image_slice), np.asarray(mask_slice) != 0
    if image.ndim != 2 or image.shape != mask.shape:
        raise MismatchError(
            f"slice of shape {image.shape} with a mask of shape {mask.shape}: use one grid, (h, w)."
        )
    box = crop_box(mask, margin)
    return _prepare(
        image.astype(np.float32)[None], mask[None], box[None], np.asarray(window, np.float32), size
    )[0]


def prepare_slices(images: Array, masks: Array, boxes: Array, window: Array, size: int = SIZE) -> jax.Array:
    """`prepare` of n slices at once, static shapes, usable inside jit: n s s 2.

    Args:
        images: n h w, float32.
        masks: n h w, bool or 0 and 1.
        boxes: n 4, see `crop_boxes`.
        window: 2 numbers.
        size: s.
    """
    rows = resize_matrix(boxes[:, 0], boxes[:, 1], images.shape[1], size)
    columns = resize_matrix(boxes[:, 2], boxes[:, 3], images.shape[2], size)

    def resized(values: jax.Array) -> jax.Array:
        # n s h, n h w, n t w
        half = jnp.einsum("nhw,ntw->nht", values, columns, precision="highest")
        return jnp.einsum("nsh,nht->nst", rows, half, precision="highest")

    return stacked(resized, images, masks, window)


def stacked(resized: Callable[[Any], Any], images: Array, masks: Array, window: Any, xp: Any = jnp) -> Any:
    """Image and mask, normalised, behind each other on a new last axis; `xp` as in `resize_matrix`."""
    low, high = window[0], window[1]
    unit = (xp.clip(xp.asarray(images, xp.float32), low, high) - low) / (high - low)
    image = (resized(unit) - IMAGE_SCALE[0]) / IMAGE_SCALE[1]
    mask = (resized(xp.asarray(masks, xp.float32)) - MASK_SCALE[0]) / MASK_SCALE[1]
    return xp.stack([image, mask], -1)


_prepare = jax.jit(prepare_slices, static_argnames="size")


def classes_in(labels: np.ndarray) -> np.ndarray:
    """The classes of a label map of any shape, in order; neither background nor 255. Counted, not sorted, where bytes."""
    bytes_ = labels.dtype == np.uint8
    found = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)) if bytes_ else np.unique(labels)
    return np.setdiff1d(found, [0, anatomy.IGNORE]).astype(int)


def slices_used(count: int, most: int = 10) -> np.ndarray:
    """Which of `count` non-empty slices are graded: all, or `most` of them at int(count / most * k), as released.

    For 11 slices these are the first ten; the last slice is never among them.
    """
    if count <= most:
        return np.arange(count)
    return np.array([int(count / most * k) for k in range(most)])


# -- volumes -----------------------------------------------------------------------------------------------------


class Cube(NamedTuple):
    """A crop of a volume around a mask: a cube in mm, which may reach beyond the volume."""

    start: np.ndarray  # 3, voxels
    stop: np.ndarray  # 3, voxels
    side_mm: float


def cube(first: Array, last: Array, spacing_mm: Sequence[float], margin_mm: float = 20.0) -> Cube:
    """The cube around voxels `first` to `last` (3 each, both inside) whose side is the longest extent and two margins.

    It keeps the organ's proportions; graders are told its `place` beside the crop.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    first, last = np.asarray(first, np.float64), np.asarray(last, np.float64) + 1
    side = float(((last - first) * spacing).max() + 2 * margin_mm)
    centre, half = (first + last) / 2, side / 2 / spacing
    return Cube((centre - half).astype(np.float32), (centre + half).astype(np.float32), side)


def place(cube: Cube, shape: Sequence[int]) -> np.ndarray:
    """Where a cube lies, 4 numbers: log of its side in dm, and its centre x y z, -1 to 1 from end to end.

    A resized crop has no size, and an organ on the wrong side looks like its partner.
    """
    centre = (cube.start + cube.stop) / np.asarray(shape, np.float64) - 1
    return np.array([np.log(cube.side_mm / 100), *centre], np.float32)


def prepare_cubes(
    image: Array,
    masks: Array,
    starts: Array,
    stops: Array,
    window: Array,
    size: int,
    shape: Array | None = None,
) -> jax.Array:
    """What the grader of volumes sees of n masks of one scan, static shapes, usable inside jit: n s s s 2.

    Beyond the volume the image has the window's lowest value and the mask is empty.

    Args:
        image: x y z, float32.
        masks: n x y z, bool or 0 and 1.
        starts, stops: n 3, voxels, see `cube`.
        window: 2 numbers.
        size: s.
        shape: 3, voxels of the volume proper where it is padded at the end; by default all.
    """
    valid = image.shape if shape is None else shape
    matrices = [resize_matrix(starts[:, a], stops[:, a], image.shape[a], size, valid[a]) for a in range(3)]

    def resized(values: jax.Array) -> jax.Array:
        if values.ndim == 3:  # one image for all masks
            values = jnp.einsum("xyz,nsz->nxys", values, matrices[2], precision="highest")
        else:
            values = jnp.einsum("nxyz,nsz->nxys", values, matrices[2], precision="highest")
        values = jnp.einsum("nxys,nty->nxts", values, matrices[1], precision="highest")
        return jnp.einsum("nxts,nux->nuts", values, matrices[0], precision="highest")

    return stacked(resized, image, masks, window)
