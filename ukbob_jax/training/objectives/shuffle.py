"""Voxels shuffled inside many small windows, all at once: Models Genesis' local pixel shuffling, on the device.

Every window permutes the voxels of the *original* image, and later windows overwrite earlier ones. So a voxel shows what
the last window over it has there, and nothing else has to be computed: which window that is (a scatter of the
windows' numbers), and where in the original its permutation takes the value from. The permutation is computed voxel
by voxel, without a table, by swap-or-not rounds (Hoang, Morris and Rogaway 2012), a bijection of any number of places.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

ROUNDS = 12  # of swapping; windows have a few hundred voxels
TOGETHER = 500  # windows that are marked at a time, which bounds the memory


def shuffled(key: jax.Array, image: jax.Array, count: int) -> jax.Array:
    """Shuffle `count` windows with sides of up to a tenth of the image's, `x y z c`; all channels alike."""
    size = image.shape[:3]
    largest = [max(1, n // 10) for n in size]
    side_key, place_key, swap_key = jax.random.split(key, 3)
    sides = jax.random.randint(side_key, (count, 3), 1, jnp.asarray(largest, jnp.int32)[None] + 1)
    starts = jax.random.randint(place_key, (count, 3), 0, jnp.asarray(size, jnp.int32)[None] - sides + 1)
    last = last_windows(starts, sides, size, largest)
    source = sources(swap_key, last, starts, sides)
    return image.reshape(-1, image.shape[-1])[source.ravel()].reshape(image.shape)


def last_windows(
    starts: jax.Array, sides: jax.Array, size: Sequence[int], largest: Sequence[int]
) -> jax.Array:
    """The number of the last window over each voxel, int32 `x y z`; -1: none.

    Args:
        starts: int32 `n 3`, first voxels.
        sides: int32 `n 3`, up to `largest`.
        size: voxels x y z.
        largest: sides x y z, static.
    """
    places = jnp.asarray(np.indices(largest).reshape(3, 1, -1), jnp.int32)  # 3 1 m
    total = int(np.prod(size))
    count = len(starts)
    chunks = -(-count // TOGETHER)
    numbers = jnp.arange(chunks * TOGETHER, dtype=jnp.int32).reshape(chunks, TOGETHER)

    def mark(owner: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        at = jnp.clip(number, 0, count - 1)
        first, side = starts[at].T[:, :, None], sides[at].T[:, :, None]  # 3 w 1
        x, y, z = first + places  # w m
        inside = jnp.all(places < side, axis=0) & (number < count)[:, None]
        flat = jnp.where(inside, (x * size[1] + y) * size[2] + z, total)
        return owner.at[flat].max(number[:, None], mode="drop"), None

    owner, _ = jax.lax.scan(mark, jnp.full(total, -1, jnp.int32), numbers)
    return owner.reshape(tuple(size))


def sources(key: jax.Array, last: jax.Array, starts: jax.Array, sides: jax.Array) -> jax.Array:
    """Where each voxel's value comes from, as flat indices int32 `x y z`: its window's permutation of its own voxels.

    Args:
        key: of the permutations.
        last: `last_windows`.
        starts: int32 `n 3`.
        sides: int32 `n 3`.
    """
    size = last.shape
    window = jnp.maximum(last, 0)
    (sx, sy, sz), first = (
        (sides[window, axis] for axis in range(3)),
        [starts[window, axis] for axis in range(3)],
    )
    here = [
        jax.lax.broadcasted_iota(jnp.int32, size, axis) - first[axis] for axis in range(3)
    ]  # place in the window
    number = (here[0] * sy + here[1]) * sz + here[2]
    number = permuted(key, jnp.where(last >= 0, number, 0), sx * sy * sz, window, len(starts))
    x, y, z = number // (sy * sz), number // sz % sy, number % sz
    source = ((x + first[0]) * size[1] + y + first[1]) * size[2] + z + first[2]
    own = jnp.arange(int(np.prod(size)), dtype=jnp.int32).reshape(size)
    return jnp.where(last >= 0, source, own)


def permuted(key: jax.Array, place: jax.Array, length: jax.Array, window: jax.Array, count: int) -> jax.Array:
    """Where a random permutation of `length` places, one for each window, takes `place` to.

    Each round pairs p with (k - p) mod length, k drawn for round and window, and swaps both or neither.

    Args:
        key: of all permutations.
        place: int32, in 0..length-1.
        length: int32, the same shape.
        window: int32, the same shape: whose permutation, in 0..count-1.
        count: of windows.
    """
    pivots = jax.random.bits(key, (ROUNDS, count), jnp.uint32)
    for pivot in pivots:
        drawn = pivot[window]
        other = (drawn % length.astype(jnp.uint32)).astype(jnp.int32) - place
        other = jnp.where(other < 0, other + length, other)
        swap = _mixed(drawn ^ _mixed(jnp.maximum(place, other).astype(jnp.uint32))) >> 31
        place = jnp.where(swap == 1, other, place)
    return place


def _mixed(x: jax.Array) -> jax.Array:
    """Scatter the bits of uint32 numbers (MurmurHash3's last step)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
