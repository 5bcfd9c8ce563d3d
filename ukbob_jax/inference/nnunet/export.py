"""From merged logits to labels on the file's grid, without ever holding classes x volume.

As nnU-Net does: logits are resampled to the cropped image's grid first, then a voxel gets its label. Here plane by plane
along the first axis, and inside a plane class by class.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from nibabel import orientations

from ukbob_jax.errors import FileError
from ukbob_jax.inference.nnunet import preprocess, resample
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.inference.nnunet.resample import Taps
from ukbob_jax.inference.nnunet.tiles import Tiles
from ukbob_jax.inference.windows import slabs
from ukbob_jax.inference.windows.slabs import Segmentation
from ukbob_jax.volumes.volume import Volume

_BUCKET = 32  # voxels; planes of labels are padded to multiples, so that scans share programs


def taps(plans: NnunetPlans, shape: Sequence[int], properties: dict[str, Any]) -> list[Taps]:
    """How logits z y x of `shape` come to the grid of the cropped image.

    Raises:
        FileError: the plans resample logits in a way that is not supported.
    """
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    target = properties["shape_after_cropping_and_before_resampling"]
    where = f"{plans.folder}: {plans.configuration}: resampling_fn_probabilities"
    current = preprocess.full_spacing(plans, spacing)
    how = resample.axes(plans.resampling_logits, shape, target, current, spacing, where)
    if how.shape != tuple(target):
        raise FileError(f"{where} leaves {how.shape} voxels as they are, and the image has {tuple(target)}.")
    return resample.taps(how, shape, where)


def label(
    planes: Iterable[jax.Array], tiles: Tiles, to: Sequence[Taps], plans: NnunetPlans, certainty: bool
) -> tuple[np.ndarray, Segmentation | None]:
    """Labels of the cropped image.

    Args:
        planes: logits k y x of the bucket, one per plane of the array.
        tiles: of the array.
        to: of `taps`.
        plans: of the model; say what is written.
        certainty: whether entropy and confidence are wanted.
    Returns:
        Labels z y x, uint8, or uint16 from 255 labels on; and on the array's own grid labels, entropy and confidence.
    """
    kind = np.uint8 if plans.foreground < 255 else np.uint16
    out = np.empty([len(tap.low) for tap in to], kind)
    inner = [_shifted(tap, before) for tap, before in zip(to[1:], tiles.before[1:])]
    regions, last = plans.region_labels, len(out)
    parts: list[Any] = []
    kept: dict[int, jax.Array] = {}
    done = 0
    for at, plane in enumerate(planes):
        if certainty:
            parts.append(_inside(_certainty(plane, regions), tiles))
        kept[at] = plane
        ready = []
        while done < last and to[0].high[done] <= at:
            low, high = (kept[int(side[done])] for side in (to[0].low, to[0].high))
            ready.append(_label_plane(low, high, to[0].weight[done], *inner, regions))
            done += 1
        for number, found in enumerate(ready, done - len(ready)):
            out[number] = np.asarray(found)[: out.shape[1], : out.shape[2]]
        oldest = to[0].low[done] if done < last else at + 1
        kept = {number: p for number, p in kept.items() if number >= oldest}
    return out, Segmentation(*map(np.stack, zip(*parts))) if certainty else None


def paste(labels: np.ndarray, plans: NnunetPlans, properties: dict[str, Any]) -> Volume:
    """Labels of the cropped image on the grid of the file, the rest 0."""
    whole = np.zeros(properties["shape_before_cropping"], labels.dtype)
    whole[tuple(slice(*pair) for pair in properties["bbox_used_for_cropping"])] = labels
    array = whole.transpose(plans.transpose_backward).T
    grid: Volume = properties["grid"]
    if plans.reader.endswith("WithReorient"):
        stored = orientations.io_orientation(grid.affine)
        ras = orientations.axcodes2ornt(("R", "A", "S"))
        array = orientations.apply_orientation(array, orientations.ornt_transform(ras, stored))
    return dataclasses.replace(grid, array=np.ascontiguousarray(array.T).T)


def _shifted(taps: Taps, before: int) -> Taps:
    """The taps of an axis in a padded plane, as many as a multiple of `_BUCKET`."""
    more = -len(taps.low) % _BUCKET
    low, high, weight = (np.pad(part, (0, more)) for part in taps)
    return Taps(low + np.int32(before), high + np.int32(before), weight)


@functools.partial(jax.jit, static_argnames="regions")
def _label_plane(
    low: jax.Array, high: jax.Array, weight: jax.Array, rows: Taps, columns: Taps, regions: tuple[int, ...]
) -> jax.Array:
    """Labels y x between two planes of logits k y x; class by class, so that logits of one class are held."""
    written = jnp.asarray(regions or range(low.shape[0]), jnp.int32)

    def logits(number: jax.Array) -> jax.Array:
        first, second = (lax.dynamic_index_in_dim(plane, number, keepdims=False) for plane in (low, high))
        plane = first + (second - first) * weight
        first, second = plane[rows.low], plane[rows.high]
        plane = first + (second - first) * rows.weight[:, None]
        first, second = plane[:, columns.low], plane[:, columns.high]
        return first + (second - first) * columns.weight[None]

    def step(number: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        label, largest = state
        found = logits(number)
        wins = found > (0 if regions else largest)  # of regions above one half the last wins
        return jnp.where(wins, written[number], label), jnp.where(wins, found, largest)

    shape = (rows.low.shape[0], columns.low.shape[0])
    start = jnp.zeros(shape, jnp.int32), jnp.full(shape, -jnp.inf, jnp.float32)
    return lax.fori_loop(0, low.shape[0], step, start)[0]


@functools.partial(jax.jit, static_argnames="regions")
def _certainty(plane: jax.Array, regions: tuple[int, ...]) -> Segmentation:
    """Label, entropy and confidence, y x, of logits k y x."""
    logits = jnp.moveaxis(plane, 0, -1)
    return slabs.reduce_regions(logits, regions) if regions else slabs.reduce_logits(logits)


def _inside(found: Segmentation, tiles: Tiles) -> tuple[np.ndarray, ...]:
    """The part of a plane that is no padding."""
    inside = tuple(slice(b, b + s) for b, s in zip(tiles.before[1:], tiles.shape[1:]))
    return tuple(np.asarray(part)[inside] for part in found)
