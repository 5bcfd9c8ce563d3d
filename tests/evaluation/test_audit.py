"""Parts of the audit page: distributions, the part of the scan that is shown, pictures."""

import base64
import io

import numpy as np
from PIL import Image

from ukbob_jax.evaluation import audit


def test_a_histogram_counts_every_defined_value_and_holds_the_limits():
    values = np.array([0.1, 0.2, 0.2, np.nan, 0.9])
    shown = audit.histogram(values, np.array([0.0, -np.inf]), np.array([2.0, np.inf]))
    assert sum(shown["bins"]) == 4 and len(shown["bins"]) == audit.BINS
    assert shown["from"] < 0.0 and shown["to"] > 2.0
    assert shown["low"] == [0.0, None] and shown["high"] == [2.0, None]
    assert sum(audit.histogram(values[3:4], np.array([-np.inf]), np.array([np.inf]))["bins"]) == 0


def test_the_window_holds_the_label_and_stays_in_the_volume():
    spacing, shape = np.array([2.0, 2.0, 4.0]), (50, 40, 30)
    for first, last in (((0, 0, 0), (4, 4, 4)), ((20, 18, 10), (30, 22, 14)), ((45, 35, 25), (49, 39, 29))):
        first, last = np.array(first), np.array(last)
        extent = (last - first + 1) * spacing
        fov = audit.field_of_view(extent, np.array([30.0, 1.0, 1.0]))
        assert (fov >= extent).all()
        start, size = audit.window(first, last, fov, spacing, shape)
        assert all(a >= 0 and a + n <= limit for a, n, limit in zip(start, size, shape))
        assert all(a <= f and e < a + n for a, n, f, e in zip(start, size, first, last))


def test_a_picture_is_three_planes_with_the_organ_tinted():
    mask = np.zeros((20, 24, 28), bool)
    mask[6:14, 6:16, 8:20] = True
    uri = audit.picture(np.ones(mask.shape, np.int16), mask, (1.0, 1.0, 1.0), np.array([255, 0, 0], np.uint8))
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
    pixels = np.asarray(image).astype(int)
    widths = [round(audit.HEIGHT * across / up) for across, up in ((20, 24), (20, 28), (24, 28))]
    assert pixels.shape == (audit.HEIGHT, sum(widths) + 6, 3)
    assert 0.1 < (pixels[..., 0] - pixels[..., 2] > 40).mean() < 0.5
