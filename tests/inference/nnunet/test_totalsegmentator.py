"""The steps of TotalSegmentator, on arrays that show each rule."""

import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax.inference.nnunet import totalsegmentator
from ukbob_jax.volumes.volume import Volume


def image(shape=(9, 8, 7), spacing=(2.0, 1.0, 3.0), dtype=np.float32) -> Volume:
    values = np.random.default_rng(0).normal(0, 100, shape)
    return Volume(values.astype(dtype), np.diag([*spacing, 1.0]))


def test_both_ends_of_an_axis_stay_and_values_are_cut_off_towards_zero():
    ramp = np.linspace(-10, 10, 9)[:, None, None] * np.ones((1, 4, 4))
    found = totalsegmentator.resample(Volume(ramp, np.diag([2.0, 1.5, 1.5, 1.0])), 1.5)
    assert found.shape == (12, 4, 4) and found.array.dtype == np.int32
    np.testing.assert_array_equal(found.array[:, 0, 0], np.trunc(np.linspace(-10, 10, 12)))
    np.testing.assert_allclose(found.spacing_mm, 1.5, rtol=1e-6)


def test_an_image_at_the_spacing_is_not_touched():
    own = image(spacing=(1.5, 1.5, 1.5))
    assert totalsegmentator.resample(own, 1.5) is own


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA"])
def test_labels_return_to_the_images_own_axes(axes):
    own = image().reorient(axes)
    small = totalsegmentator.resample(own.to_ras(), 3.0)
    labels = np.arange(small.array.size).reshape(small.shape) % 7
    found = totalsegmentator.back(labels.astype(np.uint8), own)
    assert found.shape == own.shape and found.orientation == axes and found.array.dtype == np.uint8
    factors = np.array(own.to_ras().shape) / np.array(small.shape)
    expected = ndimage.zoom(labels, factors, order=0, mode="nearest")
    np.testing.assert_array_equal(found.to_ras().array, expected)


def test_later_models_overwrite_where_they_have_a_label():
    first, second = np.array([[[1, 2, 0, 3]]]), np.array([[[0, 1, 1, 9]]])
    merged = totalsegmentator.merge([first, second], [{1: 1, 2: 2, 3: 3}, {1: 25}])
    np.testing.assert_array_equal(merged, [[[1, 25, 25, 3]]])
    assert merged.dtype == np.uint8
