"""From voxels as stored to what a network learns from: the arithmetic of a batch, on the device or on the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.anatomy import IGNORE

Arrays = dict[str, Any]  # of one kind: numpy, or JAX
BLOCK = 2**17  # values that the host works on at a time: they and what is made of them stay in its cache


def unpack(batch: Arrays) -> Arrays:
    """Normalise the image, bring labels to the ids of training, and blank out what lies beyond small volumes.

    On the device it costs next to nothing, and half the bytes travel there. Numpy and JAX give the same labels, and
    images within 1e-6 (their divisions round alike; a compiler may fuse).

    Args:
        batch: image int16 `b x y z c`, label uint8 `b x y z`, size int32 `b 3` (voxels of each crop that are the scan's,
            in the middle), offset and scale float32 `b c`, range float32 `b 2` (of the normalised image), lookup
            uint8 `b 256` (stored id -> id of training); other entries are kept.
    Returns:
        image float32 `b x y z c` (0 beyond the scan), label uint8 `b x y z` (255: ignore, as beyond the scan), and what
        else was there.
    """
    xp = jnp if isinstance(batch["image"], jax.Array) else np
    batch = dict(batch)
    size, offset, scale, limits, lookup = (
        batch.pop(name) for name in ("size", "offset", "scale", "range", "lookup")
    )
    image, label = batch["image"], batch["label"]
    x, y, z, c = image.shape[1:]
    inside = [_middle(xp, length, size[:, axis]) for axis, length in enumerate((x, y, z))]  # b n each
    # z and c as one axis: numpy's inner loop is then z times as long
    spread = [xp.tile(values, (1, z)) for values in (offset, scale)]  # b z*c
    if xp is jnp:
        normal, trained = _finish(jnp, image, label, *inside, *spread, limits, lookup)
        return {**batch, "image": normal, "label": trained}
    normal, trained = np.empty(image.shape, np.float32), np.empty(label.shape, np.uint8)
    planes = max(1, BLOCK // (y * z * c))
    for row in range(len(image)):
        one = slice(row, row + 1)
        for low in range(0, x, planes):
            block = (one, slice(low, low + planes))
            normal[block], trained[block] = _finish(
                np, image[block], label[block], inside[0][block], inside[1][one], inside[2][one],
                spread[0][one], spread[1][one], limits[one], lookup[one],
            )  # fmt: skip
    return {**batch, "image": normal, "label": trained}


def _finish(
    xp: Any, image: Any, label: Any, in_x: Any, in_y: Any, in_z: Any, offset: Any, scale: Any, limits: Any, lookup: Any
) -> tuple[Any, Any]:  # fmt: skip
    """Image and label of some planes; in_x `b x`, in_y `b y`, in_z `b z`: inside; offset, scale `b z*c`."""
    b, x, y, z, c = image.shape
    low, high = (limits[:, side, None, None, None] for side in (0, 1))
    plane = in_x[:, :, None, None] & in_y[:, None, :, None]  # b x y 1
    normal = (image.reshape(b, x, y, z * c).astype(xp.float32) - offset[:, None, None]) / scale[:, None, None]
    normal = xp.minimum(xp.maximum(normal, low), high)
    normal = xp.where(plane & xp.repeat(in_z, c, axis=1)[:, None, None], normal, xp.float32(0))
    rows = 256 * xp.arange(b, dtype=xp.int32)[:, None, None, None]
    trained = xp.take(lookup.reshape(-1), label.astype(xp.int32) + rows)
    trained = xp.where(plane & in_z[:, None, None], trained, xp.uint8(IGNORE))
    return normal.reshape(image.shape), trained


def _middle(xp: Any, length: int, size: Any) -> Any:
    """Which of `length` voxels are in the middle `size` of them, bool `b length`; size: `b`."""
    before = (length - size[:, None]) // 2  # b 1
    place = xp.arange(length, dtype=xp.int32)[None]  # 1 n
    return (place >= before) & (place < before + size[:, None])
