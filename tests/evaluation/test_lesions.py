"""Lesions counted by hand, and against a loop over connected pieces."""

import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax.evaluation import metrics


def brute(pred, true, label):
    """Lesion-wise Dice by a loop."""
    around = np.ones((3, 3, 3))
    p, n = ndimage.label((pred == label) & (true != 255), around)
    t, m = ndimage.label(true == label, around)
    scores, used = [], set()
    for i in range(1, m + 1):
        touching = set(np.unique(p[t == i])) - {0}
        used |= touching
        union = np.isin(p, list(touching)) if touching else np.zeros(p.shape, bool)
        scores.append(2 * (union & (t == i)).sum() / (union.sum() + (t == i).sum()))
    scores += [0.0] * (n - len(used))
    return np.mean(scores) if scores else np.nan


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_loop_over_pieces(seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, 20, 20, 20)), (0, 1.2, 1.2, 1.2))
    pred, true = ((s > 0.16).astype(np.uint8) for s in (smooth[0], 0.7 * smooth[0] + 0.7 * smooth[1]))
    true[:3] = 255
    assert metrics.lesions(pred, true).dice == pytest.approx(brute(pred, true, 1))


def test_counts_and_empty_cases():
    pred, true = np.zeros((2, 12, 8, 8), np.uint8)
    true[1:3, 1:3, 1:3], true[6:8, 1:3, 1:3], pred[2:4, 1:3, 1:3], pred[10, 6, 6] = 1, 1, 1, 1
    ours = metrics.lesions(pred, true)
    assert ours[:3] == (1, 1, 1) and ours.sensitivity == ours.precision == 0.5
    assert ours.dice == pytest.approx(0.5 / 3)  # 2 * 4 / 16, one false negative, one false positive
    assert metrics.lesions(pred, true, min_voxels=2)[:3] == (1, 1, 0)
    empty = np.zeros_like(pred)
    none, false_positives, false_negatives = (
        metrics.lesions(*p) for p in ((empty, empty), (pred, empty), (empty, true))
    )
    assert none[:3] == (0, 0, 0) and np.isnan(none[3:]).all()
    assert (
        false_positives[:3] == (0, 0, 2)
        and np.isnan(false_positives.sensitivity)
        and false_positives.dice == 0
    )
    assert (
        false_negatives[:3] == (0, 2, 0) and np.isnan(false_negatives.precision) and false_negatives.dice == 0
    )
    with pytest.raises(ValueError, match="one x y z grid"):
        metrics.lesions(pred, true[1:])
