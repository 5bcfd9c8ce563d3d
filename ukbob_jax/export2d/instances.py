"""Instances: the 8-connected components of every class in every slice, found in one pass over the whole stack."""

from typing import NamedTuple

import cc3d
import numpy as np
from scipy import sparse, spatial

from ukbob_jax.errors import ValuesError
from ukbob_jax.export2d.naming import MAX_INSTANCES


class Instances(NamedTuple):
    """What a stack of label slices holds; the arrays from `slices` on have one entry per instance, in the order of names.

    Attributes:
        ids: `n h+1 w+1`, the component of each pixel, 0: none. The first column and the last row are 0.
        slices, organs, numbers: which slice and class, and the instance's number in it, from 0 in reading order.
        components: its value in `ids`.
        tops, bottoms: its first and last row.
        nonempty: `m 2`, every slice and class with at least one pixel, before anything is left out.
        small, full: instances left out, because they are small or cover their slice.
    """

    ids: np.ndarray
    slices: np.ndarray
    organs: np.ndarray
    numbers: np.ndarray
    components: np.ndarray
    tops: np.ndarray
    bottoms: np.ndarray
    nonempty: np.ndarray
    small: int
    full: int


class _Runs(NamedTuple):
    """Horizontal runs of pixels of one component: their first pixels in reading order, and their lengths."""

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def find(labels: np.ndarray, min_area: float = 0.0, merge_pixels: float = 0.0) -> Instances:
    """Find the instances of all classes in all slices.

    Args:
        labels: `n h w`, uint8, 0: background.
        min_area: least share of the slice that an instance covers.
        merge_pixels: components of a class at most so far apart, between centres of pixels, are one; 0: never.
    Raises:
        ValuesError: a class has 1000 instances or more in a slice: a name has room for three digits.
    """
    n, h, w = labels.shape
    framed = np.zeros((n, h + 1, w + 1), np.uint8)  # slices below each other, apart by a row of background
    framed[:, :h, 1:] = labels
    ids = cc3d.connected_components(framed.reshape(-1, w + 1), connectivity=8).reshape(framed.shape)
    if merge_pixels > 0:
        ids = merged(ids, framed, merge_pixels)
    runs = _runs(ids)
    count = int(runs.values.max(initial=0)) + 1
    area = np.bincount(runs.values, runs.lengths, count).astype(np.int64)
    first, last = np.zeros(count, np.int64), np.zeros(count, np.int64)
    first[runs.values[::-1]], last[runs.values] = runs.starts[::-1], runs.starts
    components = np.flatnonzero(area)
    first, last, area = first[components], last[components], area[components]
    slices, organs = first // ((h + 1) * (w + 1)), framed.ravel()[first].astype(np.int64)
    small, full = area < min_area * (h * w), area == h * w
    kept = np.flatnonzero(~small & ~full)
    kept = kept[np.lexsort((first[kept], organs[kept], slices[kept]))]
    numbers = _numbers(slices[kept] * 256 + organs[kept])
    if numbers.max(initial=0) >= MAX_INSTANCES:
        raise ValuesError(
            f"a class has {numbers.max() + 1} instances in a slice; file names have room for {MAX_INSTANCES}. "
            "Raise min_area."
        )
    top, bottom = (place[kept] // (w + 1) % (h + 1) for place in (first, last))
    pairs = np.unique(slices * 256 + organs)
    return Instances(
        ids, slices[kept], organs[kept], numbers, components[kept], top, bottom,
        np.stack([pairs // 256, pairs % 256], 1), int(small.sum()), int((full & ~small).sum()),
    )  # fmt: skip


def _runs(ids: np.ndarray) -> _Runs:
    flat = ids.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    values = flat[starts]
    inside = values > 0
    return _Runs(values[inside].astype(np.int64), starts[inside], lengths[inside])


def _numbers(groups: np.ndarray) -> np.ndarray:
    """Count within runs of equal values: 5 5 5 7 7 -> 0 1 2 0 1."""
    new = np.concatenate([[True], groups[1:] != groups[:-1]])[: len(groups)]
    begin = np.flatnonzero(new)
    return np.arange(len(groups)) - np.repeat(begin, np.diff(begin, append=len(groups)))


def merged(ids: np.ndarray, labels: np.ndarray, distance: float) -> np.ndarray:
    """Give components of a class one id where they are at most `distance` pixels apart, also in a chain.

    Args:
        ids: `n h w`, component of each pixel; the first column and the last row are 0.
        labels: `n h w`, its class.
    """
    flat = ids.ravel()
    edge = np.zeros(flat.shape, bool)  # the nearest pixels of two components are on their edges
    for step in (1, -1, ids.shape[2], -ids.shape[2]):
        edge |= np.roll(flat, step) != flat
    edge = (edge & (flat > 0)).reshape(ids.shape)
    place, value = np.argwhere(edge), ids[edge].astype(np.int64)
    # Classes and slices lie so far apart along a third axis that only pixels of the same ones are near
    apart = (place[:, 0] * 256 + labels[edge]) * (2 * distance + 1)
    tree = spatial.KDTree(np.column_stack([place[:, 1:], apart]))
    near = tree.query_pairs(distance, output_type="ndarray")
    a, b = value[near[:, 0]], value[near[:, 1]]
    count = int(flat.max()) + 1
    graph = sparse.coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    number, group = sparse.csgraph.connected_components(graph, directed=False)
    lowest = np.full(number, count)
    np.minimum.at(lowest, group, np.arange(count))
    return lowest[group].astype(ids.dtype)[ids]
