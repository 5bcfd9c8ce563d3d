"""The peer of the grading benchmark prepares its slices as the released code does, and ratios are in our favour above 1."""

import numpy as np
import pytest

from tools import bench_sentinel
from ukbob_jax.sentinel import preprocessing


@pytest.mark.parametrize("place", [(slice(5, 20), slice(30, 41)), (slice(0, 3), slice(50, 60))])
def test_the_peer_prepares_slices_as_we_do(place):
    pytest.importorskip("PIL")
    rng = np.random.default_rng(0)
    image, mask = rng.uniform(0, 1, (64, 60)).astype(np.float32), np.zeros((64, 60), bool)
    mask[place] = True
    ours = preprocessing.prepare(image, mask, window=preprocessing.Window(0, 1))
    theirs = bench_sentinel.prepared(image, mask).transpose(1, 2, 0)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_ratios_above_one_are_in_our_favour():
    row = {"slices": (2.0, 3.0), "cubes": (0.5, 0.6), "published": (4.0, 6.0), "solf": (0.5, 0.5)}
    first = {name: (9.0, 9.0, None) for name in row}
    found = bench_sentinel.summary([row, row], first, 0.0, {"slices": 1.0, "cubes": 1.0, "published": 2.0})
    assert (
        found["parts"]["slices"]["published_over_this"]
        == found["parts"]["slices"]["published_over_this_cpu"]
        == 2
    )
    assert found["parts"]["cubes"]["published_over_this"] == 8
    hours = found["hours_of_the_cohort_on_one_machine"]
    assert hours["cubes + solf"] == pytest.approx(1.0 * 51_761 / 3600)
