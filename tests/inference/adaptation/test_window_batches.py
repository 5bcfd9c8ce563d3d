"""Scans padded and cut into windows."""

import numpy as np
import pytest

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation.options import Adaptation, Tent
from ukbob_jax.inference.adaptation.window_batches import prepare_scan, voxel_weights


def test_weights_are_a_mean_over_the_scan_and_zero_in_the_padding():
    scan, program = prepare_scan(np.ones((7, 3, 5, 1), np.float32), (4, 4, 4), Tent(overlap=0.5, batch=3))
    weights = np.asarray(voxel_weights(scan))
    total = np.zeros(weights.shape)
    for (x, y, z), count in zip(scan.starts.reshape(-1, 3), scan.counts.ravel()):
        window = np.s_[x : x + 4, y : y + 4, z : z + 4]
        total[window] += count * weights[window]
    assert total.sum() == pytest.approx(1) and program.roi == (4, 4, 4)
    np.testing.assert_allclose(total[total > 0], 1 / (7 * 3 * 5), rtol=1e-5)
    assert (total > 0).sum() == 7 * 3 * 5 and (np.asarray(scan.volume)[total == 0] == 0).all()


def test_values_that_a_program_is_given_do_not_change_which_it_is():
    volume = np.ones((8, 4, 8, 1), np.float32)
    base = prepare_scan(volume, (4, 4, 4), Adaptation())[1]
    same = Adaptation(learning_rate=0.5, max_drift=None, seed=3, select="out")
    assert prepare_scan(volume, (4, 4, 4), same)[1] == base
    assert prepare_scan(volume, (4, 4, 4), Adaptation(steps=2))[1] != base
    assert base.without_steps() == prepare_scan(volume, (4, 4, 4), Tent())[1]


def test_sampled_windows_are_batched_step_by_step():
    options = Adaptation(windows=3, steps=4, batch=2)
    scan = prepare_scan(np.ones((8, 4, 8, 1), np.float32), (4, 4, 4), options)[0]
    starts, counts = scan.sampled
    assert starts.shape == (4, 2, 2, 3) and counts.sum(axis=(1, 2)).tolist() == [3] * 4
    with pytest.raises(ConfigError, match="is not x y z c"):
        prepare_scan(np.ones((8, 4, 8), np.float32), (4, 4, 4), options)
