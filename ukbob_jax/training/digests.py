"""A fingerprint of every array of a tree, the same however the arrays are spread over devices and processes.

Orbax restores a file with a flipped bit without an error; a digest beside the state finds it.
"""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ukbob_jax.training.optimizer import path_name

CHUNK = 2**16  # elements hashed at a time, so that the work stays in the processor's cache


def digests(tree: Any) -> dict[str, str]:
    """Path -> eight hexadecimal digits for every array of `tree`; each process looks at its own shards.

    A digest is the sum modulo 2**32 of a hash of each element's bits and position: the order of the sum, hence the
    mesh, does not matter. The hash is one-to-one in the bits, so one changed element always shows; several changed
    ones go unseen with a chance of 2**-32.
    """
    paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(tree))
    sums = np.array([sum(_digest(*block) for block in _blocks(leaf)) % 2**32 for leaf in leaves], np.uint32)
    # What a process holds whole, such as a checkpoint read for inference, is counted once and needs no others.
    whole = np.array([not isinstance(leaf, jax.Array) or leaf.is_fully_addressable for leaf in leaves])
    if not whole.all():
        together = multihost_utils.process_allgather(sums).sum(axis=0, dtype=np.uint32)
        sums = np.where(whole, sums, together)
    return {path_name(path): f"{value:08x}" for path, value in zip(paths, sums)}


def _blocks(leaf: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """This process's part of an array: values and their positions in the whole, each element once over all."""
    if not isinstance(leaf, jax.Array):
        leaf = np.asarray(leaf)
        return [(leaf, _positions(leaf.shape, (slice(None),) * leaf.ndim))]
    shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    return [(np.asarray(shard.data), _positions(leaf.shape, shard.index)) for shard in shards]


def _positions(shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """C-order positions, modulo 2**32, of the elements of `array[index]`."""
    if all(part.indices(size) == (0, size, 1) for size, part in zip(shape, index)):
        return np.arange(math.prod(shape), dtype=np.uint32)
    place = np.zeros((), np.uint32)
    for size, part in zip(shape, index):
        place = place[..., None] * np.uint32(size) + np.arange(size, dtype=np.uint32)[part]
    return place


def _digest(values: np.ndarray, positions: np.ndarray) -> int:
    positions, total = np.ravel(positions), 0
    bits = np.ravel(values).view(f"uint{8 * min(values.dtype.itemsize, 4)}")
    if (words := values.dtype.itemsize // 4) > 1:  # 64 bits, as numpy has them: each word is an element
        positions = (positions[:, None] * np.uint32(words) + np.arange(words, dtype=np.uint32)).ravel()
    for start in range(0, bits.size, CHUNK):
        place = _mix(positions[start : start + CHUNK] + np.uint32(1))
        total += int(_mix(place ^ bits[start : start + CHUNK].astype(np.uint32)).sum(dtype=np.uint32))
    return total


def _mix(h: np.ndarray) -> np.ndarray:
    """The finalizer of MurmurHash3, a permutation of the 32-bit integers; changes `h` itself."""
    h ^= h >> 16
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> 13
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> 16
    return h
