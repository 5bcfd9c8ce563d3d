"""Logits of whole arrays, plane by plane, from tiles of a network: mirrored, averaged over folds, blended in float32.

Sums are kept for one tile's depth, in a ring: before a tile that starts further on is added, the planes that no later
tile reaches are handed out and their place in the ring is emptied. The network's program depends on tile and batch alone,
so that scans of any size share it; the sums' small ones depend on the bucket.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ukbob_jax.inference.nnunet.tiles import Tiles, gaussian
from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows import sliding
from ukbob_jax.progress import track

Importance = Callable[[tuple[int, ...]], np.ndarray]


class Sums(NamedTuple):
    """Blended logits and weights of the planes in the ring; plane p is at p modulo the depth."""

    logits: jax.Array  # z y x k
    weights: jax.Array  # z y x


def planes(
    apply: sliding.Apply,
    members: Sequence[Any],
    array: np.ndarray,
    tiles: Tiles,
    mirror_axes: Sequence[int] = (),
    batch: int = 1,
    progress: str = "",
    importance: Importance = gaussian,
) -> Iterator[jax.Array]:
    """The merged logits, one plane after the other, k y x of the bucket; planes of the padding are left out.

    Args:
        apply: one network, `(variables, b z y x c)` -> logits `b z y x k`; without z for a network of slices.
        members: the variables of each fold's network.
        array: c z y x.
        tiles: of the array's shape.
        mirror_axes: of the network's input, 0 for the first after b, whose flips are averaged, all combinations of them.
        batch: tiles in a call of the network.
        progress: show how far the work of this name is; empty: do not.
        importance: of a tile's size, the weight of each voxel of a tile, float32.
    """
    padded = pad(array, tiles)
    starts, counts = grids.batches(tiles.starts, batch, exact=True)
    size = tiles.patch[1:] if tiles.flat else tiles.patch
    k = classes(apply, members[0], batch, size, padded.shape[3])
    views = flips(len(mirror_axes))
    axes = tuple(axis + 1 for axis in mirror_axes)
    ring = Ring(tiles, k, len(views) * len(members), importance)
    for places, real in (
        track(list(zip(starts, counts)), progress, unit="batch of tiles") if progress else zip(starts, counts)
    ):
        x = jnp.asarray(np.stack([cut(padded, at, tiles) for at in places]))
        total = jnp.zeros((batch, *size, k), jnp.float32)
        for variables, view in itertools.product(members, views):
            total = add_view(apply, axes, variables, x, view, total)
        for number in np.flatnonzero(real):
            yield from ring.add(total, int(number), places[number])
    yield from ring.rest()


def pad(array: np.ndarray, tiles: Tiles) -> np.ndarray:
    """The array c z y x with zeros around it, z y x c, from which `cut` takes tiles."""
    width = [(b, p - s - b) for b, p, s in zip(tiles.before, tiles.padded, tiles.shape)]
    return np.pad(np.moveaxis(array, 0, -1), [*width, (0, 0)])


def cut(padded: np.ndarray, at: Sequence[int], tiles: Tiles) -> np.ndarray:
    """The tile with its corner at `at`, z y x c; y x c for a network of slices. A view."""
    tile = padded[tuple(slice(a, a + p) for a, p in zip(at, tiles.patch))]
    return tile[0] if tiles.flat else tile


def flips(axes: int) -> np.ndarray:
    """All combinations of mirrored and not mirrored along so many axes: `n axes`, bool."""
    return np.array(list(itertools.product((False, True), repeat=axes)), bool)


class Ring:
    """The sums of one scan, from its tiles in their order to its planes; on the device that is the default when made."""

    def __init__(self, tiles: Tiles, k: int, count: int, importance: Importance = gaussian) -> None:
        """Start with zeros.

        Args:
            tiles: of the scan.
            k: heads of the network.
            count: logits that are added up in each tile, by whose number sums are divided.
            importance: as for `planes`.
        """
        self._tiles, self._scale = tiles, np.float32(1 / count)
        self._weight = jnp.asarray(importance(tiles.patch))
        self._sums = _empty(tiles.patch[0], tiles, k)
        self._first = 0  # plane of the padded array that is handed out next

    def add(self, logits: jax.Array, number: int, at: np.ndarray) -> Iterator[jax.Array]:
        """Add tile `number` of `b z y x k` (slices: `b y x k`), and yield the planes k y x that it was the first to pass."""
        yield from self._until(int(at[0]))
        logits = logits[:, None] if self._tiles.flat else logits
        self._sums = _add_tile(self._sums, logits, self._weight, self._scale, number, at)

    def rest(self) -> Iterator[jax.Array]:
        """Yield the planes that are left after the last tile."""
        yield from self._until(self._tiles.padded[0])

    def _until(self, end: int) -> Iterator[jax.Array]:
        before, depth = self._tiles.before[0], self._tiles.patch[0]
        while self._first < end:
            at = self._first % depth
            plane, self._sums = _read(self._sums, at), _clear(self._sums, at)
            if before <= self._first < before + self._tiles.shape[0]:  # else it is of the padding
                yield plane
            self._first += 1


def classes(apply: sliding.Apply, variables: Any, batch: int, size: Sequence[int], channels: int) -> int:
    """Heads of a network, found without running it."""
    x = jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)
    return jax.eval_shape(functools.partial(sliding.traced, apply), variables, x).shape[-1]


def _empty(depth: int, tiles: Tiles, k: int) -> Sums:
    shape = (depth, *tiles.bucket[1:])
    return Sums(jnp.zeros((*shape, k), jnp.float32), jnp.zeros(shape, jnp.float32))


@functools.partial(jax.jit, static_argnames=("apply", "axes"), donate_argnames="total")
def add_view(
    apply: sliding.Apply,
    axes: tuple[int, ...],
    variables: Any,
    x: jax.Array,
    flags: jax.Array,
    total: jax.Array,
) -> jax.Array:
    """`total` and the logits of the tiles `x`, flipped along those of `axes` whose flag is set, and flipped back."""
    for number, axis in enumerate(axes):
        x = jnp.where(flags[number], jnp.flip(x, axis), x)
    logits = sliding.traced(apply, variables, x).astype(jnp.float32)
    for number, axis in enumerate(axes):
        logits = jnp.where(flags[number], jnp.flip(logits, axis), logits)
    return total + logits


@functools.partial(jax.jit, donate_argnames="sums")
def _add_tile(
    sums: Sums, logits: jax.Array, weight: jax.Array, scale: jax.Array, number: jax.Array, at: jax.Array
) -> Sums:
    """The sums with one tile of a batch, `b z y x k`, times `scale`, at its corner `at`; plane by plane, in place."""
    depth = weight.shape[0]

    def add_plane(z: jax.Array, sums: Sums) -> Sums:
        w = lax.dynamic_index_in_dim(weight, z)
        corner = (number, z, *(0,) * (logits.ndim - 2))
        tile = lax.dynamic_slice(logits, corner, (1, 1, *logits.shape[2:]))[0] * (w * scale)[..., None]
        place = ((at[0] + z) % depth, at[1], at[2])
        return Sums(sliding.add_at(sums.logits, tile, (*place, 0)), sliding.add_at(sums.weights, w, place))

    return lax.fori_loop(0, depth, add_plane, sums)


@jax.jit
def _read(sums: Sums, at: jax.Array) -> jax.Array:
    """The logits k y x of one plane of the ring; where no tile is, they are 0."""
    logits, weights = (lax.dynamic_index_in_dim(s, at, keepdims=False) for s in sums)
    weights = weights[None]
    return jnp.where(weights > 0, jnp.moveaxis(logits, -1, 0) / jnp.where(weights > 0, weights, 1), 0)


@functools.partial(jax.jit, donate_argnames="sums")
def _clear(sums: Sums, at: jax.Array) -> Sums:
    """The sums without a plane; a program of its own, since reading and writing in one would copy the ring."""
    return Sums(*(lax.dynamic_update_index_in_dim(s, jnp.zeros_like(s[0]), at, 0) for s in sums))
