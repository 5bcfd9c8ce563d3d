"""PNG files of 8-bit grey slices, without a general encoder's work.

An image: every row less the one above (filter "up"), Huffman codes only. Matches, which deflate searches for elsewhere, save
nothing in the noise of a scan and cost most of the time.

A mask: rows without foreground above and below are zeros, whose compressed form depends on their number only and is kept;
just the rows between are compressed. Parts end on whole bytes (sync flush), so that they can be joined.
"""

import functools
import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
_ZLIB = b"\x78\x01"
_BASE = 65521  # of Adler-32
_UP = 2


def filtered(images: np.ndarray) -> np.ndarray:
    """Rows of images ready to be compressed: `n h w` uint8 -> `n h 1+w`, the filter's number and differences."""
    n, h, w = images.shape
    rows = np.empty((n, h, w + 1), np.uint8)
    rows[..., 0] = _UP
    rows[:, 0, 1:] = images[:, 0]
    np.subtract(images[:, 1:], images[:, :-1], out=rows[:, 1:, 1:])
    return rows


def image(rows: np.ndarray) -> bytes:
    """A PNG file of one image of `filtered`, `h 1+w`."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    return _file(rows.shape[0], rows.shape[1] - 1, packer.compress(rows.data) + packer.flush())


def mask(ids: np.ndarray, component: int, top: int, bottom: int, height: int) -> bytes:
    """A PNG file that is 255 where `ids` is `component`, else 0.

    Args:
        ids: `height 1+w` or more rows, whose first column is 0: it becomes the number of the filter "none".
        component: not 0.
        top, bottom: first and last row that holds it.
        height: rows of the image.
    """
    width = ids.shape[1]
    rows = np.equal(ids[top : bottom + 1], component).view(np.uint8)
    np.negative(rows, out=rows)  # 1 -> 255
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    above, below = top * width, (height - 1 - bottom) * width
    middle = packer.compress(rows.data) + packer.flush(zlib.Z_SYNC_FLUSH)
    check = zlib.adler32(rows.data, above % _BASE << 16 | 1)
    low, high = check & 0xFFFF, check >> 16
    check = (high + below * low) % _BASE << 16 | low  # zeros leave the sum, and add it to the sum of sums
    data = b"".join((_ZLIB, _zeros(above, False), middle, _zeros(below, True), check.to_bytes(4, "big")))
    return _file(height, width - 1, data)


@functools.lru_cache(maxsize=8192)
def _zeros(number: int, last: bool) -> bytes:
    """Zeros, compressed; `last`: the stream ends there."""
    if not number and not last:
        return b""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(number)) + packer.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)


@functools.lru_cache(maxsize=64)
def _begin(height: int, width: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return _SIGNATURE + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def _file(height: int, width: int, data: bytes) -> bytes:
    body = b"IDAT" + data
    return b"".join(
        (_begin(height, width), len(data).to_bytes(4, "big"), body, zlib.crc32(body).to_bytes(4, "big"), _END)
    )
