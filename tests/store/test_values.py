import numpy as np
import pytest

from ukbob_jax.errors import ValuesError
from ukbob_jax.store import values


def encoded(*channels):
    return values.encode(np.stack(channels, -1), "s1")


def ramp(first, last, dtype):
    return np.linspace(first, last, 60).round().astype(dtype).reshape(5, 4, 3)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_whole_numbers_that_fit_are_stored_as_they_are(dtype):
    image = ramp(0, 250, dtype)
    stored, slope, intercept = encoded(image)
    assert stored.dtype == np.int16 and slope is None and intercept is None
    np.testing.assert_array_equal(values.decode(stored, slope, intercept)[..., 0], image)


def test_whole_numbers_of_a_scanners_range_are_shifted_without_loss():
    image = ramp(0, 65535, np.uint16)
    stored, slope, intercept = encoded(image)
    assert slope == (1.0,) and intercept == (32768.0,)
    np.testing.assert_array_equal(values.decode(stored, slope, intercept)[..., 0], image)


def test_a_channel_of_fractions_is_rounded_and_zero_stays_zero():
    whole, fraction = ramp(-5, 5, np.float32), np.linspace(0, 2.5, 60, dtype=np.float32).reshape(5, 4, 3)
    stored, slope, intercept = encoded(whole, fraction)
    found = values.decode(stored, slope, intercept)
    np.testing.assert_array_equal(found[..., 0], whole)
    np.testing.assert_allclose(found[..., 1], fraction, atol=0.51 * 2.5 / 32767)
    assert found[0, 0, 0, 1] == 0


def test_voxels_that_are_no_numbers_are_counted_and_the_first_is_named():
    image = np.zeros((3, 3, 3, 2), np.float32)
    image[1, 2, 0, 1], image[2, 0, 0, 0] = np.nan, np.inf
    with pytest.raises(ValuesError, match=r"s1: 2 voxels are NaN or infinite, the first at \(1, 2, 0, 1\)"):
        values.encode(image, "s1")
