"""Resampling against skimage and scipy, called as nnU-Net calls them."""

import numpy as np
import pytest
from scipy import ndimage

from ukbob_jax.errors import FileError
from ukbob_jax.inference.nnunet import resample
from ukbob_jax.inference.nnunet.plans import Resampling

ISOTROPIC, THICK = [1.0, 1.0, 1.0], [4.0, 1.0, 1.0]


def default(**arguments):
    return Resampling(resample.DEFAULT, {"is_seg": False, "order": 3, "force_separate_z": None, **arguments})


def skimage(image, shape, order):
    resize = pytest.importorskip("skimage.transform").resize
    return resize(image.astype(float), shape, order, mode="edge", anti_aliasing=False)


def slices(image, shape, axis, order, order_z=0):
    """nnU-Net's `resample_data_or_seg` with a separate axis."""
    plane = [n for a, n in enumerate(shape) if a != axis]
    parts = [skimage(image.take(i, axis), plane, order) for i in range(image.shape[axis])]
    stacked = np.stack(parts, axis)
    grid = np.mgrid[tuple(slice(n) for n in shape)].astype(float)
    for a in range(3):
        grid[a] = stacked.shape[a] / shape[a] * (grid[a] + 0.5) - 0.5
    return ndimage.map_coordinates(stacked, grid, order=order_z, mode="nearest")


def run(image, shape, how, current, target=ISOTROPIC):
    how = resample.axes(how, image.shape, shape, current, target, "here")
    return resample.image(image[None], how)[0]


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(size=(9, 14, 11)).astype(np.float32)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(13, 9, 11), (5, 14, 23), (9, 28, 4)])
def test_whole_volumes_are_skimages(image, shape, order):
    expected = skimage(image, shape, order)
    np.testing.assert_allclose(run(image, shape, default(order=order), ISOTROPIC), expected, atol=2e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order_z", [0, 1])
def test_slices_of_thick_axes_are_kept_apart(image, axis, order_z):
    shape = [12, 20, 7]
    shape[axis] = 25
    spacing = [4.0 if a == axis else 1.0 for a in range(3)]
    found = run(image, shape, default(order_z=order_z), spacing)
    np.testing.assert_allclose(found, slices(image, shape, axis, 3, order_z), atol=2e-6)


def test_the_current_spacing_decides_before_the_target():
    assert resample.separate_axis(THICK, [1.0, 5.0, 1.0], None, 3) == 0
    assert resample.separate_axis(ISOTROPIC, [1.0, 5.0, 1.0], None, 3) == 1
    assert resample.separate_axis([3.0, 1.0, 1.0], ISOTROPIC, None, 3) is None
    assert resample.separate_axis([5.0, 5.0, 1.0], [1.0, 5.0, 1.0], None, 3) is None
    assert resample.separate_axis([2.0, 1.0, 1.0], ISOTROPIC, True, 3) == 0
    assert resample.separate_axis(ISOTROPIC, THICK, True, 3) is None
    assert resample.separate_axis(THICK, ISOTROPIC, False, 3) is None


def test_equal_shapes_are_left_alone(image):
    assert run(image, image.shape, default(), THICK) is not None
    np.testing.assert_array_equal(run(image, image.shape, default(), THICK), image)
    np.testing.assert_array_equal(run(image, (1, 1, 1), Resampling(resample.NONE, {}), THICK), image)


def test_shapes_round_half_to_even():
    assert resample.new_shape((5, 7, 3), (1.0, 1.0, 3.0), (2.0, 2.0, 3.0)) == (2, 4, 3)


@pytest.mark.parametrize("current", [ISOTROPIC, THICK])
def test_torchs_functions_are_those_of_torch(image, current):
    torch = pytest.importorskip("torch")
    shape = (20, 9, 30)
    tensor = torch.from_numpy(image)[None, None]
    if current == THICK:
        plane = (image.shape[0], *shape[1:])
        tensor = torch.nn.functional.interpolate(tensor[0].transpose(0, 1), plane[1:], mode="bilinear")
        tensor = torch.nn.functional.interpolate(tensor.transpose(0, 1)[None], shape, mode="nearest-exact")
    else:
        tensor = torch.nn.functional.interpolate(tensor, shape, mode="trilinear")
    found = run(image, shape, Resampling(resample.TORCH, {"num_threads": 4}), current)
    np.testing.assert_allclose(found, tensor[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("current", [ISOTROPIC, THICK])
@pytest.mark.parametrize("order", [0, 1])
def test_taps_are_the_same_interpolation(image, current, order):
    shape = (20, 9, 30)
    how = resample.axes(default(order=order), image.shape, shape, current, ISOTROPIC, "here")
    found = image.astype(np.float64)
    for axis, tap in enumerate(resample.taps(how, image.shape, "here")):
        weight = tap.weight.reshape([-1 if a == axis else 1 for a in range(3)])
        found = found.take(tap.low, axis) * (1 - weight) + found.take(tap.high, axis) * weight
    np.testing.assert_allclose(found, run(image, shape, default(order=order), current), atol=1e-5)


def test_unknown_arguments_are_refused(image):
    with pytest.raises(FileError, match="'sigma'"):
        run(image, (1, 1, 1), default(sigma=1), ISOTROPIC)
    with pytest.raises(FileError, match="bicubic"):
        run(image, (1, 1, 1), Resampling(resample.TORCH, {"mode": "bicubic"}), THICK)
    how = resample.axes(default(), image.shape, (20, 9, 30), ISOTROPIC, ISOTROPIC, "here")
    with pytest.raises(FileError, match="order 3"):
        resample.taps(how, image.shape, "here")


@pytest.mark.parametrize("chunk", [2**22, 300])
def test_values_of_thousands_are_rounded_once(monkeypatch, chunk):
    """Raw CT resampled as scipy does in float64; a few columns at a time gives the same."""
    monkeypatch.setattr(resample, "_CHUNK", chunk)
    shape, new = (12, 9, 14), (15, 13, 11)
    array = np.random.default_rng(0).normal(500, 900, shape).clip(-1024, 3000).astype(np.float32)
    how = resample.Axes(new, (3, 3, 3), (None,) * 3, clip=True)
    found = resample.image(array[None], how)[0]
    zoom = [n / o for n, o in zip(new, shape)]
    expected = ndimage.zoom(array.astype(np.float64), zoom, order=3, mode="nearest", grid_mode=True)
    expected = expected.clip(array.min(), array.max()).astype(np.float32)
    assert (found != expected).mean() < 1e-3  # rounded between two axes: a third
    np.testing.assert_allclose(found, expected, atol=3e-4)
