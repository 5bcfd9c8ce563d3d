import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel import orientations

import ukbob_jax as bob
from tests.volumes.grids import ORIENTATIONS, few, noise, oblique, straight
from ukbob_jax.errors import GeometryError, ValuesError


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_all_48_orientations_come_back_as_the_same_ras_volume(codes):
    ras = bob.Volume(noise((5, 4, 3)), straight())
    there = orientations.axcodes2ornt(codes)
    change = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), there)
    stored = bob.Volume(
        orientations.apply_orientation(ras.array, change),
        ras.affine @ orientations.inv_ornt_aff(change, ras.shape),
    )
    assert stored.orientation == codes
    back = stored.to_ras()
    assert back.orientation == "RAS"
    np.testing.assert_array_equal(back.array, ras.array)
    np.testing.assert_allclose(back.affine, ras.affine, atol=1e-12)


def test_reorientation_keeps_channels_and_codes():
    stored = bob.Volume(noise((5, 4, 3, 2)), straight() @ np.diag([-1.0, 1, 1, 1]), codes=(2, 0))
    back = stored.to_ras()
    np.testing.assert_array_equal(back.array, stored.array[::-1])
    assert back.codes == (2, 0)


@few
@given(st.tuples(*[st.integers(-4, 8)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_a_crop_keeps_every_voxel_where_it_was_in_the_world(start, size):
    source = bob.Volume(noise((6, 5, 4)) + 1, oblique(5))
    part = source.crop(start, size, fill=0)
    assert part.shape == size
    index = np.indices(size).reshape(3, -1) + np.array(start)[:, None]
    inside = ((index >= 0) & (index < np.array(source.shape)[:, None])).all(0)
    values = part.array.reshape(-1)
    np.testing.assert_array_equal(values[inside], source.array[tuple(index[:, inside])])
    assert not values[~inside].any()
    np.testing.assert_allclose(part.affine @ [0, 0, 0, 1], source.affine @ [*start, 1])
    home = part.crop([-s for s in start], source.shape)
    np.testing.assert_allclose(home.affine, source.affine, atol=1e-9)


@pytest.mark.parametrize(
    "array, affine, message",
    [
        (np.zeros((3, 3)), np.eye(4), r"got \(3, 3\)"),
        (np.zeros((3, 0, 3)), np.eye(4), r"no empty axis; got \(3, 0, 3\)"),
        (np.zeros((3, 3, 3)), np.eye(3), r"affine has shape \(3, 3\)"),
        (np.zeros((3, 3, 3)), np.diag([1, 0, 1, 1]), "affine is singular"),
        (np.zeros((3, 3, 3)), np.diag([1, np.nan, 1, 1]), "affine holds NaN"),
    ],
)
def test_what_is_no_volume_is_refused(array, affine, message):
    with pytest.raises(GeometryError, match=message):
        bob.Volume(array, affine)


def test_bad_requests_are_refused_by_name():
    volume = bob.Volume(noise((3, 3, 3)), np.eye(4))
    for spacing in (0, -1, float("nan"), (1, 1, 0)):
        with pytest.raises(ValuesError, match="spacing"):
            volume.resample(spacing, 1)
    with pytest.raises(ValuesError, match=r"order 2 is not known; .*, 3 is a cubic spline"):
        volume.resample(1, 2)
    with pytest.raises(GeometryError, match="crop"):
        volume.crop((0, 0, 0), (1, 0, 1))


def test_a_grid_no_file_holds_is_refused():
    with pytest.raises(GeometryError, match=r"makes \(\d+, \d+, \d+\) voxels, at most 32767 an axis"):
        bob.Volume(np.zeros((4, 4, 4), np.int16), np.eye(4)).resample(1e-6, order=1)
