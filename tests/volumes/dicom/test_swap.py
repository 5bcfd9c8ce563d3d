"""Fat and water exchanged: sound scans are not suspected, exchanged stations and legs are."""

import numpy as np
import pytest
from scipy import ndimage

from tests.volumes import ukb_archive as ukb
from tests.volumes.dicom.dixon_archive import join, read, scanned
from ukbob_jax import phantom
from ukbob_jax.volumes.dicom import swap


@pytest.mark.parametrize("station", [1, 3, 6])
def test_swapped_station_is_flagged(station, tmp_path):
    found = join(read(tmp_path, ukb.swapped(list(scanned()), station)))
    assert found.quality["swapped"] == [station]


def test_swapped_leg_is_flagged(tmp_path):
    found = join(read(tmp_path, ukb.swapped(list(scanned()), 5, half=True)))
    left, right = found.quality["swap"][4]
    assert found.quality["swapped"] == [5] and left > 0 > right


@pytest.mark.parametrize("seed", range(4))
def test_swap_indicator_is_negative_for_sound_scans_and_changes_sign(seed):
    shape = (80, 58, 120)
    image, label = phantom.subject(seed, shape)
    station = np.repeat(np.arange(6, 0, -1), 20).astype(np.uint8) * np.ones(shape, np.uint8)
    fat, water = image[..., 0], image[..., 1]
    sound = swap.indicators(fat, water, label > 0, station, phantom.spacing_mm(shape))
    exchanged = swap.indicators(water, fat, label > 0, station, phantom.spacing_mm(shape))
    values = [half for pair in sound for half in pair if half is not None]
    assert len(values) >= 11 and max(values) < -0.1
    np.testing.assert_allclose(
        [half for pair in exchanged for half in pair if half is not None], -np.array(values)
    )
    assert swap.suspected(sound) == [] and swap.suspected(exchanged) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("radii", [(1, 1), (2, 5), (9, 1)])
def test_the_core_is_what_a_box_fits_into(radii):
    mask = np.random.default_rng(0).uniform(size=(12, 30, 4)) < 0.97
    mask[2:9, 2:26] = True
    box = np.ones((2 * radii[0] + 1, 2 * radii[1] + 1, 1))
    found = swap.erode_in_plane(mask, list(radii))
    np.testing.assert_array_equal(found, ndimage.binary_erosion(mask, box))
    assert found.dtype == bool and found.any() == (radii[0] < 5)
