"""Slices of a volume as a radiologist sees them."""

import numpy as np
import pytest

from ukbob_jax.volumes.slices import rescale_intensity, slice_for_display

SHAPE = (4, 5, 6)  # x y z
RIGHT, FRONT, HEAD = np.s_[-1, :, :], np.s_[:, -1, :], np.s_[:, :, -1]  # faces of a volume in RAS


@pytest.mark.parametrize(
    ("plane", "face", "edge"),
    [
        ("coronal", HEAD, np.s_[0, :]),
        ("coronal", RIGHT, np.s_[:, 0]),
        ("axial", FRONT, np.s_[0, :]),
        ("axial", RIGHT, np.s_[:, 0]),
        ("sagittal", HEAD, np.s_[0, :]),
        ("sagittal", FRONT, np.s_[:, -1]),
    ],
)
def test_right_is_on_the_viewers_left_and_head_or_front_up(plane, face, edge):
    array = np.zeros(SHAPE, np.uint8)
    array[face] = 1
    shown = slice_for_display(array, plane, 2)
    expected = np.zeros_like(shown)
    expected[edge] = 1
    np.testing.assert_array_equal(shown, expected)


def test_intensities_are_clipped_between_percentiles_and_a_constant_image_is_black():
    image = np.random.default_rng(0).normal(50, 10, (9, 10, 11))
    shown = rescale_intensity(image)
    low, high = np.percentile(image, (1, 99.5))
    np.testing.assert_allclose(shown, np.clip((image - low) / (high - low), 0, 1))
    assert shown.min() == 0 and shown.max() == 1
    assert not rescale_intensity(np.full((3, 3), 7.0)).any()
