"""Labels of whole scans without the logits of whole scans.

Windows come slab by slab along one axis. Sums are kept for one window's depth only: before a window that starts
further on is added, the planes no later window reaches are turned into labels, and the others move up. 73 classes on
224 x 174 x 370 voxels with windows of 96 need 1.3 GB instead of 4.3 GB.

Programs are kept per bucket: volumes with the same number of windows along each axis are padded to one shape, while
their windows stay where their own shape puts them. A cohort of similar scans compiles once, and no result changes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows import sliding
from ukbob_jax.inference.windows.entropy import LOWEST, mask_classes, voxel_entropy, winner
from ukbob_jax.inference.windows.window import Window

Array = np.ndarray | jax.Array


class Segmentation(NamedTuple):
    """What a network says about each voxel of a scan."""

    labels: Array  # x y z, uint8, the class with the largest blended logit; of equals, the first
    entropy: Array  # x y z, float32, nats, of the softmax of the blended logits
    confidence: Array  # x y z, float32, its largest probability; of regions, the least certain one's


def segment(
    apply: sliding.Apply,
    variables: Any,
    volume: jax.Array | np.ndarray,
    window: Window,
    *,
    exclude: Sequence[int] = (),
    region_labels: Sequence[int] = (),
) -> Segmentation:
    """Labels, entropy and confidence from the blended logits of overlapping windows, as numpy arrays.

    Labels equal the argmax of `sliding.sliding_window_params`: both add windows in the same order.

    Args:
        apply: `(variables, b *roi c)` -> `b *roi k`, k at most 256; for a Flax module `sliding.ModuleApply(module)`.
        variables: pytree of arrays; new values compile nothing. For a Flax module `{"params": params}`.
        volume: `x y z c`.
        window: its size, and how it slides.
        exclude: classes that are never predicted and get no probability.
        region_labels: for a network of regions that overlap (sigmoid): a voxel gets region_labels[c] where channel c
            is above one half, later channels overwrite earlier ones, and 0 where none is. Empty: classes exclude each
            other (softmax).

    Raises:
        ConfigError: settings that cannot be used, a volume that is not `x y z c`.
    """
    volume = sliding.check_volume(volume)
    grid = grids.windows(volume.shape[:3], window.roi, window.overlap)
    padded = sliding.pad_volume(volume, grid, grid.bucket)
    whole = _segment(
        apply,
        variables,
        padded,
        *grids.batches(grid.starts, window.batch),
        dataclasses.replace(window, roi=grid.roi),
        grid.axis,
        tuple(exclude),
        tuple(region_labels),
    )
    inside = tuple(slice(b, b + s) for b, s in zip(grid.before, grid.shape))
    # cut out on the host, where a new shape compiles nothing
    return Segmentation(*(part[inside] for part in jax.device_get(whole)))


def reduce_logits(logits: jax.Array, exclude: tuple[int, ...] = ()) -> Segmentation:
    """Label, entropy and confidence of each voxel: `... k` float32 -> three of `...`."""
    logits = mask_classes(logits, exclude)
    label, largest = winner(logits)
    # with z = logits - max: H = log sum e^z - (sum z e^z) / sum e^z, and the largest p is 1 / sum e^z
    z = jnp.maximum(logits - largest[..., None], LOWEST)
    e, ones = jnp.exp(z), jnp.ones(logits.shape[-1], logits.dtype)
    # sums as products with ones: XLA vectorises those on CPU, and not a sum over the last axis
    total, product = (jnp.matmul(part, ones, precision=lax.Precision.HIGHEST) for part in (e, z * e))
    return Segmentation(label, jnp.log(total) - product / total, 1 / total)


def reduce_regions(logits: jax.Array, region_labels: tuple[int, ...]) -> Segmentation:
    """The same for regions that overlap, one channel each; see `segment`."""
    label = jnp.zeros(logits.shape[:-1], jnp.uint8)
    for channel, value in enumerate(region_labels):
        label = jnp.where(logits[..., channel] > 0, jnp.uint8(value), label)
    confidence = jax.nn.sigmoid(jnp.min(jnp.abs(logits), axis=-1))
    return Segmentation(label, voxel_entropy(logits, "sigmoid"), confidence)


@functools.partial(jax.jit, static_argnames=("apply", "window", "axis", "exclude", "region_labels"))
def _segment(
    apply: sliding.Apply,
    variables: Any,
    volume: jax.Array,
    starts: jax.Array,
    counts: jax.Array,
    window: Window,
    axis: int,
    exclude: tuple[int, ...],
    region_labels: tuple[int, ...],
) -> Segmentation:
    """`segment` of a bucket, `x y z c`, with windows at `starts`, `m batch 3`; `counts`, `m batch`, 0 for fillings."""
    roi, shape, depth = tuple(window.roi), volume.shape[:3], window.roi[axis]
    weight = jnp.asarray(grids.blend_weights(roi, window.blend))[..., None]
    k = sliding.num_outputs(apply, variables, starts.shape[1], roi, volume.shape[3], volume.dtype)

    def finish(first: jax.Array, last: jax.Array, sums: tuple, out: tuple) -> tuple[jax.Array, tuple]:
        """Labels of the planes from `first`, where the sums begin, to before `last`; returns `last`, and the outputs."""

        def plane(at: jax.Array, out: tuple) -> tuple:
            total, weights = (lax.dynamic_index_in_dim(part, at - first, axis) for part in sums)
            logits = total / weights
            parts = reduce_regions(logits, region_labels) if region_labels else reduce_logits(logits, exclude)
            return tuple(lax.dynamic_update_index_in_dim(o, part, at, axis) for o, part in zip(out, parts))

        return lax.while_loop(lambda c: c[0] < last, lambda c: (c[0] + 1, plane(*c)), (first, out))

    def advance(by: jax.Array, sums: tuple) -> tuple:
        """The sums moved on by some planes, in place; zeros come in. Row by row, which lie together in memory."""
        along = 1 if axis == 0 else 0

        def row(at: jax.Array, sums: tuple) -> tuple:
            rows = (lax.dynamic_index_in_dim(total, at, along) for total in sums)
            longer = (jnp.concatenate([r, jnp.zeros_like(r)], axis) for r in rows)
            moved = (lax.dynamic_slice_in_dim(r, by, depth, axis) for r in longer)
            return tuple(lax.dynamic_update_index_in_dim(s, m, at, along) for s, m in zip(sums, moved))

        return lax.fori_loop(0, jnp.where(by > 0, shape[along], 0), row, sums)

    def add_window(state: tuple, xs: tuple) -> tuple[tuple, None]:
        first, sums, out = state  # first: the plane the sums begin at
        start, count, logits = xs  # 3, scalar, *roi k
        # Sums move up by as far as labels got: this order lets XLA work in place, without copies of them.
        done, out = finish(first, start[axis], sums, out)
        sums = advance(done - first, sums)
        w, corner = weight * count, (*start.at[axis].set(0), 0)
        sums = tuple(sliding.add_at(total, part, corner) for total, part in zip(sums, (logits * w, w)))
        return (done, sums, out), None

    def add_batch(state: tuple, xs: tuple) -> tuple[tuple, None]:
        logits = sliding.traced(apply, variables, sliding.cut(volume, xs[0], roi)).astype(jnp.float32)
        return lax.scan(add_window, state, (*xs, logits))[0], None

    part = tuple(depth if a == axis else shape[a] for a in range(3))
    sums = (jnp.zeros((*part, k), jnp.float32), jnp.zeros((*part, 1), jnp.float32))
    out = tuple(jnp.zeros(shape, dtype) for dtype in (jnp.uint8, jnp.float32, jnp.float32))
    first, sums, out = lax.scan(add_batch, (jnp.int32(0), sums, out), (starts, counts))[0]
    return Segmentation(*finish(first, first + depth, sums, out)[1])
