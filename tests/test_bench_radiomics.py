import numpy as np
import pytest

from tests.radiomics.test_features import blobs
from tools import bench_radiomics
from ukbob_jax import radiomics


def test_the_plain_peer_computes_what_ours_does():
    pytest.importorskip("skimage")
    image, labels = blobs()
    ours = radiomics.features(image, labels, bench_radiomics.SPACING, bin_count=bench_radiomics.LEVELS)
    theirs = bench_radiomics.plain(image, labels, [1, 2, 4])
    worst = bench_radiomics.compared(ours, theirs)
    assert set(worst) == {f for f in radiomics.ALL}
    assert max(worst.values()) < 1e-5, worst  # float32 vertices
    assert np.isfinite(list(worst.values())).all()
