import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel import orientations
from scipy import interpolate, ndimage

import ukbob_jax as bob
from tests.volumes.grids import ORIENTATIONS, few, noise, oblique, ramp, straight, world
from ukbob_jax.errors import ValuesError
from ukbob_jax.volumes import resample


@few
@given(st.integers(0, 1000), st.tuples(*[st.floats(0.7, 4.0)] * 3))
def test_a_linear_ramp_is_exact_at_any_spacing_on_oblique_grids(seed, spacing):
    gradient = np.random.default_rng(seed).normal(size=3)
    source = ramp(oblique(seed), (9, 7, 6), gradient)
    volume = source.resample(spacing, order=1)
    assert volume.spacing_mm == pytest.approx(spacing)
    np.testing.assert_allclose(volume.affine[:3, 3], source.affine[:3, 3])  # the first voxel stays
    index = world(np.linalg.solve(source.affine, volume.affine), volume.shape)
    inside = (index <= np.array(source.shape) - 1).all(-1)
    error = np.abs(volume.array - world(volume.affine, volume.shape) @ gradient)[inside]
    assert error.max() < 1e-4  # float32 of values up to some hundreds
    expected = np.round((np.array(source.shape) - 1) * source.spacing_mm / np.array(spacing) + 1)
    assert volume.shape == tuple(expected)


@few
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_linear_ramp_is_exact_on_another_oblique_grid(seed, other):
    gradient = np.random.default_rng(seed).normal(size=3)
    source = ramp(oblique(seed), (20, 18, 16), gradient)
    inner = oblique(other, (0.6, 0.7, 0.8))
    centre = source.affine @ [9.5, 8.5, 7.5, 1]
    inner[:3, 3] = centre[:3] - inner[:3, :3] @ [4, 4, 4]  # well inside the source
    volume = source.resample_like(bob.Volume(np.zeros((9, 9, 9)), inner, (3, 0)), order=1)
    np.testing.assert_allclose(volume.array, world(inner, (9, 9, 9)) @ gradient, atol=1e-4)
    assert volume.codes == (3, 0)


@few
@given(st.integers(0, 1000), st.tuples(*[st.floats(0.7, 4.0)] * 3), st.sampled_from(ORIENTATIONS))
def test_parallel_grids_take_the_same_values_as_map_coordinates(seed, spacing, codes):
    source = bob.Volume(noise((8, 7, 6), seed), straight())
    target = bob.Volume(noise((6, 9, 7)), straight(spacing, (-13.0, 6.0, 19.0)))
    change = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes))
    target = bob.Volume(
        orientations.apply_orientation(target.array, change),
        target.affine @ orientations.inv_ornt_aff(change, target.shape),
    )
    position = np.moveaxis(world(np.linalg.solve(source.affine, target.affine), target.shape), -1, 0)
    want = ndimage.map_coordinates(source.array.astype(np.float64), position, order=1, mode="nearest")
    np.testing.assert_allclose(source.resample_like(target, order=1).array, want, atol=2e-5 * 250)


@few
@given(st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.integers(0, 1))
def test_a_shift_by_whole_voxels_copies_voxels(shift, signs, order):
    source = bob.Volume(noise((6, 5, 4)), straight())
    index = [np.clip(s + d * np.arange(n), 0, n - 1) for s, d, n in zip(shift, signs, source.shape)]
    step = np.diag([*signs, 1.0])
    step[:3, 3] = shift
    target = bob.Volume(source.array, source.affine @ step)
    np.testing.assert_allclose(
        source.resample_like(target, order).array, source.array[np.ix_(*index)], atol=1e-3
    )


@few
@given(st.integers(0, 1000), st.sampled_from([1.0, 2.0, 0.5]))
def test_labels_come_home_through_resampling_and_back(seed, factor):
    grid = bob.Volume(np.zeros((8, 7, 6), np.uint8), oblique(seed))
    fine = bob.Volume(noise((3, 3, 3), seed, np.uint8).repeat(4, 0).repeat(4, 1).repeat(4, 2), grid.affine)
    there = fine.resample([s * factor for s in fine.spacing_mm], order=0)
    back = there.resample_like(fine, order=0)
    assert back.shape == fine.shape and back.array.dtype == np.uint8
    assert set(np.unique(back.array)) <= set(np.unique(fine.array))
    if factor <= 1:
        np.testing.assert_array_equal(back.array, fine.array)


def test_nearest_on_a_turned_grid_makes_no_new_ids():
    source = bob.Volume(np.where(noise((12, 12, 12)) > 125, 7, 40).astype(np.uint8), straight())
    turned = source.resample_like(bob.Volume(np.zeros((10, 10, 10)), oblique(3)), order=0)
    assert turned.array.dtype == np.uint8 and set(np.unique(turned.array)) <= {7, 40}


def test_the_border_value_repeats_outside():
    source = bob.Volume(np.arange(4, dtype=np.int16).reshape(4, 1, 1), np.eye(4))
    wide = bob.Volume(np.zeros((8, 2, 1)), straight((1, 1, 1), (-2.0, 0, 0)))
    assert source.resample_like(wide, order=1).array[:, 1, 0].tolist() == [0, 0, 0, 1, 2, 3, 3, 3]


def test_a_cubic_spline_goes_through_the_voxels_and_is_that_of_scipy():
    """Away from the border, where splines of other end conditions agree: they decay by 0.27 a voxel."""
    line = np.random.default_rng(0).normal(size=40)
    source = bob.Volume(np.broadcast_to(line[:, None, None], (40, 3, 3)), np.eye(4))
    fine = source.resample((0.5, 1, 1), order=3)
    assert fine.shape == (79, 3, 3) and fine.array.dtype == np.float32
    np.testing.assert_allclose(fine.array[::2, 1, 1], line, atol=2e-6)
    want = interpolate.make_interp_spline(np.arange(40), line, k=3)(np.arange(79) / 2)
    np.testing.assert_allclose(fine.array[24:-24, 1, 1], want[24:-24], atol=2e-6)
    with pytest.raises(ValuesError, match="order 3 is not known"):
        source.resample_like(source, order=3)


@pytest.mark.parametrize("order", [0, 1])
def test_channels_and_memory_orders_give_the_same_numbers(order):
    array = noise((9, 8, 7, 3))
    c = bob.Volume(array, straight()).resample((2.2, 1.4, 2.6), order)
    f = bob.Volume(np.asfortranarray(array), straight()).resample((2.2, 1.4, 2.6), order)
    np.testing.assert_allclose(
        c.array, f.array, rtol=1e-5 * order
    )  # linear: axes in another order round apart
    one = bob.Volume(array[..., 1], straight()).resample((2.2, 1.4, 2.6), order)
    np.testing.assert_array_equal(c.array[..., 1], one.array)
    assert c.array.dtype == (np.float32 if order else np.int16)


def test_the_same_spacing_changes_nothing():
    source = bob.Volume(noise((5, 4, 3)), straight())
    for order in (0, 1):
        np.testing.assert_array_equal(source.resample(source.spacing_mm, order).array, source.array)


def test_resampling_needs_little_memory_beyond_the_result():
    source = bob.Volume(noise((96, 96, 96)), straight())
    tracemalloc.start()
    result = source.resample(1.6, order=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * result.array.nbytes


@pytest.mark.parametrize(
    "size, before, after, expected",
    [(5, 1.0, 2.0, 3), (5, 2.0, 1.0, 9), (4, 1.0, 2.0, 2), (1, 3.0, 1.0, 1), (2, 1.0, 100.0, 1)],
)
def test_grid_size_rounds_half_to_even_and_keeps_a_voxel(size, before, after, expected):
    found = resample.grid_size((size,) * 3, np.full(3, before), np.full(3, after))
    assert found == (expected,) * 3


def test_along_axes_samples_the_outer_product_and_clamps():
    array = np.add.outer(np.add.outer(100.0 * np.arange(3), 10.0 * np.arange(4)), np.arange(5))
    positions = [np.array([0.5, 9.0]), np.array([-1.0, 1.25]), np.array([4.0])]
    found = resample.along_axes(array, positions, resample.LINEAR)
    np.testing.assert_allclose(found[..., 0], [[54.0, 66.5], [204.0, 216.5]])
