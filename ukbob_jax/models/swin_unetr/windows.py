"""Attention windows of a volume: their size, their shift, which tokens may see each other, relative positions.

Everything here that depends on sizes only is numpy, computed once per shape and kept: a constant of the compiled
program, never of the batch. Axes: b batch, x y z voxels, c channels, n windows, t tokens of one window, h heads.
Shifted windows after Swin (Liu et al. 2021, section 3.2), in 3D as Swin-UNETR uses them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.models.architecture import Size


def fit(size: Size, window: Size, shift: Size) -> tuple[Size, Size]:
    """Window and shift used on a map of `size` voxels: an axis no longer than its window is one window, unshifted."""
    whole = [s <= w for s, w in zip(size, window)]
    used = tuple(s if all_ else w for s, w, all_ in zip(size, window, whole))
    return used, tuple(0 if all_ else s for s, all_ in zip(shift, whole))


def padded(size: Size, window: Size) -> Size:
    """`size` rounded up to whole windows, per axis."""
    return tuple(-(-s // w) * w for s, w in zip(size, window))


def pad_to(x: jax.Array, size: Size) -> jax.Array:
    """`x` (b x y z c) with zeros appended so that its x, y, z are `size`; unchanged where they already are."""
    if x.shape[1:4] == tuple(size):
        return x
    return jnp.pad(x, ((0, 0), *((0, want - have) for want, have in zip(size, x.shape[1:4])), (0, 0)))


def crop_to(x: jax.Array, size: Size) -> jax.Array:
    """The first `size` voxels of `x` (b x y z c): undoes `pad_to`."""
    return x if x.shape[1:4] == tuple(size) else x[:, : size[0], : size[1], : size[2]]


def window_partition(x: jax.Array, window: Size) -> jax.Array:
    """`x` (b x y z c) as windows (b n t c); x, y, z must be multiples of the window. Order: x slowest, z fastest."""
    b, *size, c = x.shape
    counts = [s // w for s, w in zip(size, window)]
    pairs = [length for pair in zip(counts, window) for length in pair]
    x = x.reshape(b, *pairs, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, int(np.prod(counts)), int(np.prod(window)), c)


def window_reverse(tokens: jax.Array, window: Size, size: Size) -> jax.Array:
    """Windows (b n t c) back to the volume (b x y z c) of `size` that `window_partition` took them from."""
    b, _, _, c = tokens.shape
    counts = [s // w for s, w in zip(size, window)]
    x = tokens.reshape(b, *counts, *window, c).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, *size, c)


@functools.lru_cache(maxsize=64)
def shift_region_ids(size: Size, window: Size, shift: Size) -> np.ndarray | None:
    """Which part of the unshifted volume each token comes from, after the roll by `-shift`.

    Two tokens of one window may attend to each other only if their regions are equal. Keeping n*t ids instead of an
    n*t*t mask lets the comparison fuse into the softmax.

    Args:
        size: voxels x y z, multiples of the window.
        window: voxels.
        shift: voxels; an axis with 0 is one region.
    Returns:
        n t, int32; None where no axis is shifted (every token sees its whole window).
    """
    if not any(shift):
        return None
    ids = np.zeros((1, *size, 1), np.int32)
    for axis, (length, w, s) in enumerate(zip(size, window, shift)):
        place = np.arange(length)
        part = (
            np.where(place < length - w, 0, np.where(place < length - s, 1, 2))
            if s
            else np.zeros(length, int)
        )
        ids = 3 * ids + part.reshape([-1 if i == axis + 1 else 1 for i in range(5)])
    counts = [length // w for length, w in zip(size, window)]
    pairs = [length for pair in zip(counts, window) for length in pair]
    ids = ids.reshape(pairs).transpose(0, 2, 4, 1, 3, 5).reshape(np.prod(counts), np.prod(window))
    return _kept(ids.astype(np.int32))


@functools.lru_cache(maxsize=64)
def relative_index(window: Size) -> np.ndarray:
    """Row of the relative-bias table for every pair of tokens of a full window: t t, int64, (query, key)."""
    places = np.indices(window).reshape(3, -1)  # 3 t
    steps = places[:, :, None] - places[:, None, :] + np.array(window).reshape(3, 1, 1) - 1  # 3 t t, from 0
    widths = 2 * np.array(window) - 1
    return _kept((steps[0] * widths[1] + steps[1]) * widths[2] + steps[2])


def _kept(array: np.ndarray) -> np.ndarray:
    """`array`, which is shared from now on, made read-only."""
    array.setflags(write=False)
    return array
