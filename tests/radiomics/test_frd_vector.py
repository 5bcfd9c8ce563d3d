"""What the distance compares, beside frd-score's own extraction: 1001 numbers in 3D, 398 and 102 of a slice."""

import json
import sys

import nibabel
import numpy as np
import pytest
from PIL import Image

from ukbob_jax import errors, radiomics
from ukbob_jax.radiomics import filters, outline
from ukbob_jax.radiomics.frd_vectors import names

pytest.importorskip("SimpleITK")
pytest.importorskip("pywt")
NOISE = 1e-12  # of means of bands that are 0 but for rounding, beside values of 100


def assert_same(found, wanted, rtol=1e-9):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=NOISE, err_msg=name)


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("key", ["ct", "mr", "spine"])
def test_vector_of_an_organ(reference, key):
    case = json.loads((reference / "radiomics" / "features.json").read_text())[key]
    image, labels = (nibabel.load(reference / "volumes" / case[what]) for what in ("image", "labels"))
    mask = np.asarray(labels.dataobj).astype(int) == case["label"]
    found = radiomics.frd_vector(
        np.asarray(image.dataobj), mask, case["spacing_xyz"], affine=image.affine, form="released"
    )
    assert len(case["frd_v1_3d"]) == 1001 and set(names()) == set(case["frd_v1_3d"])
    # of medians of bands, 1e-11 of rounding in the wavelet
    assert_same(found, case["frd_v1_3d"] | case["frd_v1_3d_numeric_diagnostics"])


@pytest.mark.reference
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_vector_of_a_slice(reference, version):
    folder = reference / "radiomics"
    wanted_names = json.loads((folder / "frd_images.json").read_text())[version]["names"]
    assert len(wanted_names) == {"v0": 102, "v1": 398}[version]
    pixels = np.asarray(Image.open(folder / "frd_images" / "a" / "0.png")).T[:, :, None]
    mask = np.ones(pixels.shape, bool)
    mask[0, 0] = version == "v0"  # v1 clears a corner
    found = radiomics.frd_vector(pixels, mask, (1, 1, 1), version=version, form="released")
    wanted = dict(zip(wanted_names, np.load(folder / "frd_images.npz")[f"{version}_a"][0]))
    own = [name for name in found if not name.startswith("diagnostics")]
    assert own == list(names(version, is_slice=True))
    assert_same({name.removeprefix("original_"): value for name, value in found.items()}, wanted)


def test_bands_and_their_names():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(7, 6, 5))
    bands = filters.wavelet_bands(image)
    assert list(bands)[-1] == "wavelet-LLL" and len(bands) == 8
    assert all(band.shape == image.shape for band in bands.values())
    ramp = np.broadcast_to(np.cos(np.pi * np.arange(6))[:, None], (8, 6, 4))  # alternates along y alone
    energy = {name: (band**2).sum() for name, band in filters.wavelet_bands(ramp).items()}
    assert max(energy, key=energy.get) == "wavelet-LHL"
    slices = filters.wavelet_bands(image[:, :, :1])
    assert set(slices) == {"wavelet-LL", "wavelet-LH", "wavelet-HL", "wavelet-HH"}


def test_laplacian_is_that_of_a_gaussian_in_mm():
    image = np.zeros((41, 41, 31))
    image[20, 20, 15] = 1
    spacing, sigma = np.array([1.0, 1.0, 1.5]), 4.0
    found = filters.laplacian(image, spacing, sigma)
    squared = ((np.argwhere(np.ones(image.shape)) - (20, 20, 15)) * spacing) ** 2
    r2 = squared.sum(1).reshape(image.shape)
    gaussian = spacing.prod() / (2 * np.pi * sigma**2) ** 1.5 * np.exp(-r2 / (2 * sigma**2))
    exact = gaussian * (r2 / sigma**2 - 3)  # sigma squared times the Laplacian
    # the recursive filter approximates the Gaussian to about 2 %
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_outline_of_simple_masks():
    square = outline.outline(np.ones((3, 5), bool), (2.0, 1.0))
    assert square["shape2D_MeshSurface"] == pytest.approx(30 - 4 * 2 / 8)
    assert square["shape2D_Perimeter"] == pytest.approx(2 * (2 * 2 + 4 * 1) + 4 * np.hypot(1, 0.5))
    two = outline.outline(np.eye(2, dtype=bool), (1.0, 1.0))  # they touch at a corner
    assert two["shape2D_MeshSurface"] == pytest.approx(1.0)
    assert two["shape2D_Perimeter"] == pytest.approx(8 * np.sqrt(0.5))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": np.ones((1, 1, 8)), "mask": np.ones((1, 1, 8))}, errors.GeometryError, "two axes"),
        ({"image": np.ones((8, 8)), "mask": np.ones((8, 8))}, errors.GeometryError, "x y z"),
        ({"spacing_mm": (0, 1, 1)}, errors.GeometryError, "spacing_mm="),
        ({"spacing_mm": (1, 1)}, errors.GeometryError, "spacing_mm="),
        ({"affine": np.eye(3)}, errors.GeometryError, "affine"),
        ({"affine": np.zeros((4, 4))}, errors.GeometryError, "affine"),
        ({"mask": np.full((8, 8, 8), np.nan)}, errors.ValuesError, "the mask is NaN"),
        ({"spacing_mm": (2, 2, 0.2)}, errors.GeometryError, "1 voxels along an axis, and v1 needs 4"),
        ({"spacing_mm": (2, 2, 0.7)}, errors.GeometryError, "3 voxels along an axis"),
    ],
)
def test_what_has_no_vector_is_refused_in_one_line(change, error, message):
    image = np.random.default_rng(0).normal(size=(8, 8, 8))
    given = {"image": image, "mask": image > 0, "spacing_mm": (2, 2, 2)}
    with pytest.raises(error, match=message) as caught:
        radiomics.frd_vector(**{**given, **change})
    assert "\n" not in str(caught.value)


def test_bad_input(monkeypatch):
    image = np.random.default_rng(0).normal(size=(8, 8, 8))
    with pytest.raises(errors.MismatchError, match="one x y z grid"):
        radiomics.frd_vector(image, image[1:] > 0, (1, 1, 1))
    with pytest.raises(errors.ValuesError, match="two or more"):
        radiomics.frd_vector(image, image > 99, (1, 1, 1))
    with pytest.raises(errors.ValuesError, match="constant"):
        radiomics.frd_vector(0 * image, image > 0, (1, 1, 1))
    with pytest.raises(errors.GeometryError, match="4 voxels along each axis"):
        filters.laplacian(image[:2], (1, 1, 1), 2.0)
    with pytest.raises(errors.ConfigError, match="wavelet='coif'"):
        filters.wavelet_bands(image, "coif")
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(errors.ConfigError, match="PyWavelets, which is not installed"):
        filters.wavelet_bands(image)
