"""Where the body is, against the phantom's labels and an independent threshold."""

import numpy as np
import pytest

from ukbob_jax import phantom
from ukbob_jax.volumes.dicom import body


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_body_is_the_phantoms(seed):
    shape = (80, 58, 120)  # 6.25 x 5.2 x 9.2 mm
    image, label = phantom.subject(seed, shape)
    station = np.repeat(np.arange(6, 0, -1), 20).astype(np.uint8) * np.ones(shape, np.uint8)
    found = body.body_mask(image[..., 2], phantom.spacing_mm(shape), station)
    assert 2 * (found & (label > 0)).sum() / (found.sum() + (label > 0).sum()) > 0.985
    assert found[label > 0].mean() > 0.97


def test_otsu_is_skimages():
    skimage = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(20, 6, 4000), rng.normal(120, 25, 3000)])
    top = np.percentile(values, body.BRIGHT)
    expected = skimage.threshold_otsu(np.minimum(values, top), nbins=body.BINS)
    assert body.otsu(values) == pytest.approx(
        expected, abs=1.5 * np.ptp(values) / body.BINS
    )  # bin edge against centre
    assert body.otsu(np.full(10, 3.0)) == 3.0
