import numpy as np
import pytest

from ukbob_jax.errors import ValuesError
from ukbob_jax.store import values


def encoded(*channels):
    return values.encode(np.stack(channels, -1), "s1")[:3]


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


def relaxation_map(hot: float) -> np.ndarray:
    """A T2* map in ms `x y z`, with a fit that blew up in one voxel."""
    found = np.random.default_rng(0).normal(25, 3, (12, 11, 10)).astype(np.float32)
    found[:3], found[5, 5, 5] = 0, hot
    return found


def test_one_hot_voxel_does_not_flatten_the_tissue():
    tissue, calm = relaxation_map(1e6), relaxation_map(40)
    found = values.encode(np.stack([calm, tissue], -1), "s1", ["water", "t2star"])
    assert found.stored.dtype == np.float32 and found.slope is None and found.intercept is None
    assert "channel t2star would be off by up to 15" in found.remark and "1e+06" in found.remark
    np.testing.assert_array_equal(values.decode(*found[:3]), np.stack([calm, tissue], -1))


@pytest.mark.parametrize(("hot", "dtype"), [(200, np.int16), (400, np.float32)])
def test_a_thousandth_of_the_interquartile_range_decides(hot, dtype):
    image = relaxation_map(hot)
    found = values.encode(image[..., None], "s1")
    slope = hot / 32767
    spread = values.tissue_spread(image)
    error = values.loss(image, np.rint(image / slope).astype(np.int16), slope, 0.0, spread)
    nonzero = image[image != 0].astype(np.float64)
    assert spread == pytest.approx(np.subtract(*np.percentile(nonzero, (75, 25))), rel=1e-6)
    assert found.stored.dtype == dtype and (error > 1e-3 * spread) == (dtype == np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (1000, 1e-2), (-3e5, 7e4)])
def test_no_voxel_errs_by_more_than_what_spares_the_measurement(mean, deviation, dtype):
    image = np.random.default_rng(0).normal(mean, deviation, (30, 40, 50)).astype(dtype)
    ends = float(image.min()), float(image.max())
    slope, intercept = max(map(abs, ends)) / 32767, 0.0
    stored = np.rint((image - intercept) / slope).clip(-32768, 32767).astype(np.int16)
    most = values.most_lost(slope, ends)
    assert 0.9 * most < values.loss(image, stored, slope, intercept, spread=1.0) <= most


def test_an_error_that_may_be_too_large_is_measured(monkeypatch):
    measured = []
    loss = values.loss
    monkeypatch.setattr(values, "loss", lambda *given: measured.append(given) or loss(*given))
    values.encode(np.random.default_rng(0).normal(9, 1, (9, 9, 9, 1)).astype(np.float32), "s1")
    assert not measured  # half a step of a 32767th of 13 is far below a thousandth of the spread
    values.encode(relaxation_map(400)[..., None], "s1")
    assert len(measured) == 1


def test_a_map_of_one_fraction_stays_int16():
    found = values.encode(np.where(relaxation_map(9) > 0, np.float32(0.1), np.float32(0))[..., None], "s1")
    assert found.stored.dtype == np.int16 and not found.remark


def test_what_float32_cannot_tell_apart_is_refused():
    image = 1e12 + np.random.default_rng(0).normal(0, 1, (6, 6, 6, 1))
    with pytest.raises(ValuesError, match="s1: channel 0: float32 cannot tell its tissue apart"):
        values.encode(image, "s1")
