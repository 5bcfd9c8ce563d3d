import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ukbob_jax.errors import ConfigError, ValuesError
from ukbob_jax.volumes import intensity

METHODS = ("auto", "zscore", "percentile", "window:-160:240")


def scan() -> np.ndarray:
    """x y z c: a body of two intensities in air."""
    image = np.zeros((8, 8, 8, 2), np.int16)
    image[2:6, 2:6, 2:6] = np.random.default_rng(0).integers(50, 500, (4, 4, 4, 2))
    return image


def test_statistics_are_those_of_the_voxels_that_are_not_zero():
    image = scan()
    stats = intensity.statistics(image)
    for c in range(2):
        body = image[2:6, 2:6, 2:6, c].astype(np.float64)
        assert stats.mean[c] == pytest.approx(body.mean())
        assert stats.std[c] == pytest.approx(body.std())
        assert (stats.low[c], stats.high[c]) == pytest.approx(tuple(np.percentile(body, (0.5, 99.5))))


def test_what_nnunet_has_normalised_stays():
    image = np.random.default_rng(0).normal(0, 50, (4, 4, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(intensity.normalize(image, intensity.statistics(image), "nnunet"), image)


def test_automatic_method_tells_ct_from_mr_by_channel():
    stats = intensity.Statistics(
        mean=(-400.0, 300.0), std=(500.0, 100.0), low=(-1010.0, 4.0), high=(900.0, 800.0)
    )
    values = intensity.normalize(np.array([[60.0, 400.0], [-1000.0, 0.0], [1000.0, 900.0]]), stats, "auto")
    np.testing.assert_allclose(values, [[0.2, 1.0], [-5.0, -3.0], [5.0, 5.0]])


def test_percentiles_of_a_large_scan_come_from_a_sample_that_is_close_enough(monkeypatch):
    image = np.random.default_rng(0).gamma(3.0, 100.0, (64, 64, 64, 1)).astype(np.float32)
    exact = intensity.statistics(image)
    monkeypatch.setattr(intensity, "SAMPLE", 2**15)  # one voxel in eight
    sampled = intensity.statistics(image)
    assert (sampled.mean, sampled.std) == (exact.mean, exact.std)
    assert (*sampled.low, *sampled.high) == pytest.approx((*exact.low, *exact.high), rel=0.1)


def test_the_body_of_a_scan_gets_mean_zero_and_spread_one():
    image = scan()
    body = intensity.normalize(image, intensity.statistics(image), "zscore")[2:6, 2:6, 2:6]
    assert body.mean() == pytest.approx(0, abs=1e-5) and body.std() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(
    "method, value, expected",
    [
        ("zscore", 30.0, 2.0),
        ("zscore", 1000.0, 5.0),
        ("zscore", -1000.0, -5.0),
        ("percentile", 25.0, 0.75),
        ("percentile", 99.0, 1.0),
        ("window:-160:240", 40.0, 0.5),
        ("window:-160:240", -1000.0, 0.0),
    ],
)
def test_one_value_by_hand(method, value, expected):
    stats = intensity.Statistics(mean=(10.0,), std=(10.0,), low=(-5.0,), high=(35.0,))
    assert intensity.normalize(np.full((1, 1), value), stats, method).item() == pytest.approx(expected)


@pytest.mark.parametrize("method", METHODS)
def test_numpy_and_jax_give_the_same_float32(method):
    image = scan()
    stats = intensity.statistics(image)
    host = intensity.normalize(image, stats, method)
    device = jax.jit(lambda x: intensity.normalize(x, stats, method))(jnp.asarray(image))
    assert host.dtype == device.dtype == np.float32
    np.testing.assert_allclose(host, device, atol=1e-5)
    np.testing.assert_array_equal(host[1:3, :, :2], intensity.normalize(image[1:3, :, :2], stats, method))


@pytest.mark.parametrize("method", ("zscore", "percentile"))
@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1e6])
def test_a_constant_channel_becomes_zeros(method, value):
    image = np.full((9, 9, 9, 1), value, np.float32)
    out = intensity.normalize(image, intensity.statistics(image), method)
    np.testing.assert_allclose(out, 0, atol=1e-6)


@pytest.mark.parametrize(
    "method", ["z", "window", "window:1", "window:2:1", "window:a:b", "window:0:inf", ""]
)
def test_an_unknown_method_is_named(method):
    with pytest.raises(ConfigError, match="window:LOW:HIGH"):
        intensity.check_method(method)


def test_wrong_images_are_refused():
    with pytest.raises(ValuesError, match="x y z c"):
        intensity.statistics(np.zeros((3, 3, 3)))
    with pytest.raises(ValuesError, match="finite"):
        intensity.statistics(np.full((2, 2, 2, 1), np.nan))
    with pytest.raises(ValuesError, match="3 channels"):
        intensity.normalize(np.zeros((2, 3)), intensity.statistics(scan()), "zscore")


def test_outliers_do_not_rule_the_automatic_scale():
    calm = np.random.default_rng(0).normal(25, 3, (30, 30, 30, 1))
    hot = calm.copy()
    hot[5, 5, 5] = 1e6
    stats = intensity.statistics(hot)
    assert (
        intensity.heavy_tailed(stats).all() and not intensity.heavy_tailed(intensity.statistics(calm)).any()
    )
    found = intensity.normalize(hot, stats, "auto")
    assert found.std() == pytest.approx(1, rel=0.05) and np.median(found) == pytest.approx(0, abs=0.05)
    assert intensity.normalize(hot, stats, "zscore").std() < 0.1  # as it was: the tissue is flat
    for method in ("auto", "zscore"):  # an ordinary scan has the same numbers in both
        np.testing.assert_array_equal(
            intensity.mapping(intensity.statistics(calm), method).scale,
            intensity.mapping(intensity.statistics(calm), "zscore").scale,
        )
