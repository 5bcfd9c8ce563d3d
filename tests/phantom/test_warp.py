import numpy as np

from ukbob_jax.phantom import grid, warp
from ukbob_jax.phantom.person import draw, stream

AXES = grid.axes_mm((40, 30, 60))


def test_bspline_weights_sum_to_one():
    basis = warp._bspline_basis(np.linspace(0, 1, 37), 9)
    assert np.allclose(basis.sum(axis=1), 1, atol=1e-6) and basis.min() >= 0


def test_smooth_field_has_unit_spread_and_is_smooth():
    spreads = [warp.smooth_field(stream(seed, 0), AXES, 60.0).std() for seed in range(8)]
    assert 0.85 < np.mean(spreads) < 1.15
    field = warp.smooth_field(stream(0, 0), AXES, 200.0)
    assert field.shape == (40, 30, 60) and field.dtype == np.float32
    assert np.sqrt(np.mean(np.diff(field, axis=2) ** 2)) < 0.2 * field.std()


def test_the_same_draw_on_another_grid_is_the_same_field():
    coarse = warp.smooth_field(stream(1, 0), AXES, 90.0)
    fine = warp.smooth_field(stream(1, 0), grid.axes_mm((120, 90, 180)), 90.0)
    assert np.allclose(fine[1::3, 1::3, 1::3], coarse, atol=1e-4)  # the middle of three fine voxels


def test_coordinates_grow_along_their_axis():
    rigid, fields = warp.reference_coordinates(stream(4, 1), draw(4), AXES)
    for axis in range(3):
        assert np.all(np.diff(rigid[axis]) > 0)
        assert np.mean(np.diff(fields[axis], axis=axis) > 0) > 0.999  # the deformation does not fold


def test_a_tall_body_reaches_less_far_down():
    people = sorted((draw(seed) for seed in range(12)), key=lambda p: p.tallness)
    lowest = [warp.reference_coordinates(stream(0, 1), p, AXES)[0][2][0] for p in (people[0], people[-1])]
    assert lowest[0] < lowest[1]
