"""Stations to one volume: weights, blending, and stations that do not belong together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.volumes import ukb_archive as ukb
from tests.volumes.dicom.dixon_archive import truth
from ukbob_jax.errors import GeometryError
from ukbob_jax.volumes.dicom import stitch
from ukbob_jax.volumes.volume import Volume


def test_turned_station_is_refused():
    stations = ukb.cut(truth())
    angle = np.deg2rad(2)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    stations[2] = Volume(stations[2].array, turn @ stations[2].affine)
    with pytest.raises(GeometryError, match="turned against the others"):
        stitch.stitch(stations)


def stack(draws: list[tuple[float, int]], step: float, value: float = 1.0) -> list[Volume]:
    """Stations from head to knee: (lowest slice, slices) each, constant."""
    made = []
    for low, n in draws:
        affine = np.diag([2.0, 2.0, step, 1.0])
        affine[2, 3] = low
        made.append(Volume(np.full((4, 5, n, 2), value, np.float32), affine))
    return made


@settings(max_examples=30, deadline=None)
@given(
    lows=st.lists(st.floats(20, 45), min_size=1, max_size=4),
    step=st.sampled_from([2.5, 3.0, 4.5]),
    grid=st.sampled_from([2.0, 3.0, 3.7]),
)
def test_weights_sum_to_one_and_nothing_is_extrapolated(lows, step, grid):
    heights = np.cumsum([0.0, *lows])[
        ::-1
    ]  # slices of 12 each reach 27 to 50 mm: overlaps and gaps both occur
    found = stitch.stitch(stack([(low, 12) for low in heights], step, 7.0), (2.0, 2.0, grid))
    z = found.image.affine[2, 3] + grid * np.arange(found.image.shape[2])
    tall, profile, map_ = 11 * step, found.image.array[1, 2, :, 0], found.station.array[1, 2]
    outside = np.maximum(heights - z[:, None], z[:, None] - heights - tall).min(
        1
    )  # mm beyond the nearest station
    assert (map_[outside < 0.02] > 0).all() and (map_[outside > 0.05] == 0).all()  # 0.01 voxel is rounding
    np.testing.assert_allclose(profile, np.where(map_ > 0, 7.0, 0.0), rtol=2e-6)  # float32 sums
    assert len(found.gaps_mm) == int((heights[:-1] - heights[1:] > tall + 1e-9).sum())


def test_blend_is_half_a_cosine():
    upper, lower = stack([(27.0, 12), (0.0, 12)], 3.0)
    upper = Volume(upper.array * 5, upper.affine)
    found = stitch.stitch([upper, lower])
    shares = (found.image.array[0, 0, :, 0] - 1) / 4  # of the upper station, at every 3 mm from 0
    expected = 0.5 - 0.5 * np.cos(np.pi * (np.arange(3) + 0.5) / 3)  # overlap 27 to 33 mm: three slices
    np.testing.assert_allclose(shares, [0] * 9 + expected.tolist() + [1] * 9, atol=1e-6)
    assert found.seam_costs == (round(4 / 3, 4),)  # |5 - 1| / ((5 + 1) / 2)


def test_smaller_field_of_view_leaves_no_hole():
    upper, lower = stack([(27.0, 12), (0.0, 12)], 3.0, 9.0)
    affine = lower.affine.copy()
    affine[1, 3] = 2.0
    found = stitch.stitch([upper, Volume(lower.array[:, 1:4], affine)])
    assert (found.image.array[:, 1:4] == 9).all()
    assert (found.image.array[:, 0, 9:] == 9).all() and not found.image.array[:, 0, :9].any()
