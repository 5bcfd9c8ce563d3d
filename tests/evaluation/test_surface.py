"""Surface distances of shapes whose distances are known; MONAI's values are in test_metrics.py."""

import numpy as np
import pytest

from ukbob_jax.evaluation import surface
from ukbob_jax.evaluation.metrics import surface as distances


def voxel(*at: int) -> np.ndarray:
    label = np.zeros((16, 8, 8), np.uint8)
    label[at] = 1
    return label


@pytest.mark.parametrize("apart", [0, 1, 2, surface.REACH, surface.REACH + 1, 10])
def test_two_voxels_are_as_far_apart_as_they_lie(apart):
    """Also beyond the reach of the rings, where a k-d tree is asked."""
    found = distances(voxel(2, 3, 3), voxel(2 + apart, 3, 3), (1.5, 1.0, 2.0), 2, tolerance_mm=3.0)
    assert found.hd[1] == found.hd95[1] == found.assd[1] == pytest.approx(1.5 * apart)
    assert found.nsd[1] == (1.5 * apart <= 3.0)


def test_both_directions_count():
    pred, true = voxel(2, 3, 3), voxel(2, 3, 3)
    true[10, 3, 3] = 1  # far from the prediction; nothing of the prediction is far from the truth
    for first, second in ((pred, true), (true, pred)):
        found = distances(first, second, (1.0, 1.0, 1.0), 2)
        assert (
            found.hd[1] == 8
            and found.assd[1] == pytest.approx(8 / 3)
            and found.nsd[1] == pytest.approx(2 / 3)
        )
