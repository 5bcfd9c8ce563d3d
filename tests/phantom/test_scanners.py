import numpy as np
import pytest

from ukbob_jax import phantom
from ukbob_jax.errors import ConfigError
from ukbob_jax.phantom import scanners


@pytest.fixture(scope="module")
def image():
    return phantom.subject(5, (48, 32, 96))[0]


@pytest.mark.parametrize("name", scanners.SCANNERS)
def test_same_anatomy_other_look(image, name):
    shifted = scanners.render(image, name, 0)
    assert shifted.shape == image.shape and shifted.dtype == np.float32
    assert np.isfinite(shifted).all() and shifted.min() >= 0 and shifted.max() < 32767
    for c in range(4):
        a, b = (v[..., c].ravel() for v in (image, shifted))
        likeness = np.corrcoef(a, b)[0, 1]
        assert 0.45 < likeness < 0.995
    change = np.abs(shifted - image).mean() / image.mean()
    assert change > 0.12


@pytest.mark.parametrize("name", scanners.SCANNERS)
def test_the_seed_decides(image, name):
    a, b, c = (scanners.render(image, name, seed) for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_the_input_is_not_changed(image):
    before = image.copy()
    for name in scanners.SCANNERS:
        scanners.render(image, name, 0)
    assert np.array_equal(image, before)


def test_noise_raises_the_floor(image):
    air = image[:3, :3, :20]
    assert scanners.render(image, "noise", 0)[:3, :3, :20].mean() > 2 * air.mean()


def test_bias_varies_several_fold(image):
    body = image[..., 2] > 60
    ratio = scanners.render(image, "bias", 0)[..., 2][body] / image[..., 2][body]
    assert np.percentile(ratio, 95) / np.percentile(ratio, 5) > 2


def test_low_resolution_removes_fine_detail(image):
    def detail(v):
        return np.abs(np.diff(v, axis=2)).mean()

    assert detail(scanners.render(image, "low_resolution", 0)) < 0.7 * detail(image)


def test_going_through_a_coarse_grid_keeps_constants_and_means():
    for n, m in ((96, 44), (31, 17), (8, 8)):
        matrix = scanners._through_coarse(n, m)
        assert np.allclose(matrix.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(scanners._through_coarse(8, 8), np.eye(8), atol=1e-6)


def test_unknown_scanner_names_the_choices(image):
    with pytest.raises(ConfigError, match="low_field"):
        scanners.render(image, "new", 0)
