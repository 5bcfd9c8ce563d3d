"""Our PNG files hold, read by pillow, exactly the pixels that went in."""

import io

import numpy as np
import pytest
from PIL import Image

from ukbob_jax.export2d import png


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.verify()  # checksums
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.array(image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (257, 3), (64, 40)])
def test_an_image_comes_back(shape):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.uint8)
    for image, rows in zip(images, png.filtered(images)):
        np.testing.assert_array_equal(decoded(png.image(rows)), image)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (40, 33), (700, 300)])
@pytest.mark.parametrize("where", ["top", "bottom", "inside", "all"])
def test_a_mask_comes_back(shape, where):
    h, w = shape
    mask = np.zeros(shape, bool)
    rows = {
        "top": slice(0, 1),
        "bottom": slice(h - 1, h),
        "inside": slice(h // 3, h // 2 + 1),
        "all": slice(h),
    }
    mask[rows[where]] = np.random.default_rng(1).random((h, w))[rows[where]] < 0.5
    mask[rows[where].start, 0] = True
    found = np.flatnonzero(mask.any(1))
    ids = np.zeros((h + 1, w + 1), np.uint32)
    ids[:h, 1:] = np.where(mask, 7, 3)
    data = png.mask(ids, 7, int(found[0]), int(found[-1]), h)
    np.testing.assert_array_equal(decoded(data), np.where(mask, 255, 0))


def test_a_small_mask_is_no_larger_than_pillow_makes_it():
    y, x = np.mgrid[:370, :224]
    mask = ((y - 100) / 20) ** 2 + ((x - 60) / 15) ** 2 < 1
    ids = np.pad(mask, ((0, 1), (1, 0))).astype(np.uint32)
    theirs = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(theirs, "PNG")
    assert len(png.mask(ids, 1, 81, 119, 370)) < 1.3 * len(theirs.getvalue())
