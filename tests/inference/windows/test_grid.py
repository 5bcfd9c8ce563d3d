"""Where windows lie and what they weigh, against MONAI and by what must hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.inference.windows.monai_cases import reference_cases
from ukbob_jax.inference.windows import grid as grids

LENGTHS = st.tuples(*[st.integers(1, 40)] * 3)


@pytest.mark.reference
@pytest.mark.parametrize("name", reference_cases())
def test_windows_equal_monai(monai, name):
    case = monai[0][name]
    grid = grids.windows(case["shape"][2:], case["roi"], case["overlap"])
    assert list(grid.padded) == case["padded_shape"]
    assert len(grid.starts) == case["n_windows"]
    assert sorted(map(tuple, grid.starts.tolist()))[:200] == list(map(tuple, case["window_starts"]))


@pytest.mark.reference
def test_blend_weights_equal_monai(reference):
    maps = np.load(reference / "sliding_window" / "importance_maps.npz")
    tested = [name for name in maps if name.endswith(f"sigma{grids.SIGMA_SCALE}")]
    assert tested
    for name in tested:
        expected, roi = maps[name], name.split("_")[1]
        ours = grids.blend_weights([int(r) for r in roi.split("x")], "gaussian")
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


@given(LENGTHS, LENGTHS, st.floats(0, 0.95))
def test_windows_cover_every_voxel_and_stay_inside(shape, roi, overlap):
    grid = grids.windows(shape, roi, overlap)
    ends = grid.starts + np.array(grid.roi)
    assert (grid.starts >= 0).all() and (ends <= np.array(grid.padded)).all()
    assert len(set(map(tuple, grid.starts.tolist()))) == len(grid.starts)
    assert all(b >= p for b, p in zip(grid.bucket, grid.padded))
    assert len(grids.windows(grid.bucket, roi, overlap).starts) == len(grid.starts)
    for axis in range(3):
        covered = np.zeros(grid.padded[axis], bool)
        for start in set(grid.starts[:, axis].tolist()):
            covered[start : start + grid.roi[axis]] = True
        assert covered.all()
    assert (np.diff(grid.starts[:, grid.axis]) >= 0).all()  # slab by slab


def test_weights_of_a_voxel_add_up_to_one():
    grid = grids.windows((11, 7, 5), (4, 4, 8), 0.5)
    x, y, z = grids.coverage_weights(grid)
    weight = x[:, None, None] * y[:, None] * z
    total = np.zeros(grid.bucket)
    for i, j, k in grid.starts:
        window = (slice(i, i + 4), slice(j, j + 4), slice(k, k + 8))
        total[window] += weight[window]
    expected = np.zeros(grid.bucket)
    expected[:11, :7, 1:6] = 1
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_windows_are_sampled_equally_often():
    starts = np.arange(15).reshape(5, 3)
    chosen = grids.sample_windows(starts, windows=2, steps=5, seed=3)
    assert chosen.shape == (5, 2, 3)
    assert np.unique(chosen.reshape(-1, 3), axis=0, return_counts=True)[1].tolist() == [2] * 5
    np.testing.assert_array_equal(chosen, grids.sample_windows(starts, 2, 5, 3))
    assert grids.sample_windows(starts, windows=9, steps=1, seed=0).shape == (1, 5, 3)


def test_batches_are_filled_with_copies_that_do_not_count():
    starts, counts = grids.batches(np.arange(9).reshape(3, 3), 2)
    assert starts[..., 0].tolist() == [[0, 3], [6, 6]] and counts.tolist() == [[1, 1], [1, 0]]
    assert grids.batches(starts[0], 5)[0].shape == (1, 2, 3) and grids.batches(starts[0], 5, exact=True)[
        0
    ].shape == (1, 5, 3)
