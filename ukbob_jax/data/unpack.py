"""From voxels as stored to what a network learns from: the arithmetic of a batch, on the device or on the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.anatomy import IGNORE

Arrays = dict[str, Any]  # of one kind: numpy, or JAX
# What `unpack` uses up.
PACKED = ("stored", "label", "size", "before", "outside", "offset", "scale", "range", "lookup")
BLOCK = 2**17  # values that the host works on at a time: they and what is made of them stay in its cache


def unpack(batch: Arrays) -> Arrays:
    """Normalise the image, bring labels to the ids of training, and blank out what lies beyond small volumes.

    On the device it costs next to nothing, and half the bytes travel there. Contrasts come first in what is stored, as
    in the store's chunks: a device interleaves them on the way, and reading is spared it. Numpy and JAX give the same
    labels, and images within 1e-6 (their divisions round alike; a compiler may fuse).

    Args:
        batch: stored int16 or float32 `b c x y z`, size int32 `b 3` (voxels of each crop that are the scan's), offset
            and scale float32 `b c`, range float32 `b 2` (of the normalised image), and, where there are labels, label
            uint8 `b x y z` and lookup uint8 `b 256` (stored id -> id of training). It may have before int32 `b 3` (voxels
            before the scan's; otherwise those are in the middle) and outside uint8 `b` (label beyond the scan, otherwise
            255: ignore). Other entries are kept, such as annotated, weights and anonymised.
    Returns:
        image float32 `b x y z c` (0 beyond the scan), label uint8 `b x y z` (255: ignore) where there is one, and what
        else was there.
    """
    rest = {name: array for name, array in batch.items() if name not in PACKED}
    packed = {name: batch[name] for name in PACKED if name in batch}
    stored, size, before = packed["stored"], packed.pop("size"), packed.pop("before", None)
    shape = stored.shape[2:]  # x y z
    if isinstance(stored, jax.Array):
        return {**rest, **_finish(jnp, packed, *_inside(jnp, shape, size, before))}
    in_x, in_y, in_z = _inside(np, shape, size, before)
    b, c, x, y, z = stored.shape
    done: Arrays = {"image": np.empty((b, x, y, z, c), np.float32)}
    if "label" in packed:
        done["label"] = np.empty((b, x, y, z), np.uint8)
    planes = max(1, BLOCK // (y * z * c))
    for row in range(b):
        one = slice(row, row + 1)
        for low in range(0, x, planes):
            part = slice(low, low + planes)
            block = {name: array[one] for name, array in packed.items()}
            block["stored"] = stored[one, :, part]
            if "label" in packed:
                block["label"] = packed["label"][one, part]
            for name, array in _finish(np, block, in_x[one, part], in_y[one], in_z[one]).items():
                done[name][one, part] = array
    return {**rest, **done}


def _finish(xp: Any, packed: Arrays, in_x: Any, in_y: Any, in_z: Any) -> Arrays:
    """Return image and label of some planes; in_x `b x`, in_y `b y`, in_z `b z`: which voxels are the scan's."""
    each = (..., None, None, None)
    inside = in_x[:, :, None, None] & in_y[:, None, :, None] & in_z[:, None, None]  # b x y z
    stored, limits = packed["stored"], packed["range"]
    normal = (stored.astype(xp.float32) - packed["offset"][each]) / packed["scale"][each]  # b c x y z
    normal = xp.minimum(xp.maximum(normal, limits[:, :1][each]), limits[:, 1:][each])
    normal = xp.where(inside[:, None], normal, xp.float32(0))
    done = {"image": xp.moveaxis(normal, 1, -1)}
    if "label" in packed:
        rows = 256 * xp.arange(len(stored), dtype=xp.int32)[:, None, None, None]
        trained = xp.take(packed["lookup"].reshape(-1), packed["label"].astype(xp.int32) + rows)
        outside = packed["outside"][:, None, None, None] if "outside" in packed else xp.uint8(IGNORE)
        done["label"] = xp.where(inside, trained, outside)
    return done


def _inside(xp: Any, shape: tuple[int, int, int], size: Any, before: Any = None) -> list[Any]:
    """Return which voxels along each axis are the scan's: bool `b x`, `b y`, `b z`.

    These are `size` (`b 3`) from `before` (`b 3`) on, by default those in the middle.
    """
    masks = []
    for axis, length in enumerate(shape):
        middle = (length - size[:, axis, None]) // 2  # b 1
        first = middle if before is None else before[:, axis, None]
        place = xp.arange(length, dtype=xp.int32)[None]  # 1 n
        masks.append((place >= first) & (place < first + size[:, axis, None]))
    return masks
