"""Filtered images that radiomic features are also taken of: Laplacian of Gaussian, and a wavelet's bands.

Both keep the image's grid. SimpleITK and PyWavelets are those of pyradiomics; the extra `radiomics` installs them.
"""

import importlib
import itertools
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from ukbob_jax.errors import ConfigError, GeometryError, ValuesError

LEAST = 4  # voxels along each axis; the recursive Gaussian needs them
ORIGINAL = "original"


def laplacian_name(sigma_mm: float) -> str:
    """Name that pyradiomics gives a Laplacian of Gaussian, such as "log-sigma-2-0-mm-3D"."""
    return f"log-sigma-{str(float(sigma_mm)).replace('.', '-')}-mm-3D"


def laplacian(image: np.ndarray, spacing_mm: Sequence[float], sigma_mm: float) -> np.ndarray:
    """Laplacian of the image smoothed by a Gaussian, multiplied by sigma squared so that scales compare.

    By the recursive approximation of the Gaussian (Deriche 1993; Farneback and Westin 2006).

    Args:
        image: `x y z`.
        sigma_mm: of the Gaussian.
    Returns:
        `x y z`, float64.
    Raises:
        ConfigError: SimpleITK is not installed.
        GeometryError: an axis has fewer than four voxels.
        ValuesError: sigma is not above 0, or the image has values that are not finite.
    """
    image = _checked(image)
    if min(image.shape) < LEAST:
        raise GeometryError(
            f"image of shape {image.shape}: a Laplacian of Gaussian needs {LEAST} voxels along each axis. Leave it out."
        )
    if not np.isfinite(sigma_mm) or sigma_mm <= 0:
        raise ValuesError(f"sigma_mm={sigma_mm}: give a number above 0.")
    sitk = _library("SimpleITK", "SimpleITK")
    volume = sitk.GetImageFromArray(image.T)  # z y x
    volume.SetSpacing([float(s) for s in spacing_mm])
    smooth = sitk.LaplacianRecursiveGaussianImageFilter()
    smooth.SetNormalizeAcrossScale(True)
    smooth.SetSigma(float(sigma_mm))
    return sitk.GetArrayFromImage(smooth.Execute(volume)).T


def band_names(axes: int) -> tuple[str, ...]:
    """Names of a wavelet's bands over two or three axes, the smooth one last, as pyradiomics lists them."""
    bands = sorted(itertools.product("LH", repeat=axes), key=lambda band: (set(band) == {"L"}, band))
    return tuple("wavelet-" + "".join(band) for band in bands)


def wavelet_bands(image: np.ndarray, wavelet: str = "coif1") -> dict[str, np.ndarray]:
    """All bands of one level of the stationary wavelet transform, each on the image's grid.

    Args:
        image: `x y z`; an axis of one voxel is not transformed. Odd axes are continued by one voxel, periodically.
    Returns:
        Band -> `x y z`, float64: "wavelet-LLH" is high-pass along z only; eight bands, four for a slice.
    Raises:
        ConfigError: PyWavelets is not installed, or has no such wavelet.
        GeometryError: every axis has one voxel.
        ValuesError: the image has values that are not finite.
    """
    image = _checked(image)
    axes = tuple(axis for axis, n in enumerate(image.shape) if n > 1)
    if not axes:
        raise GeometryError(f"image of shape {image.shape}: a wavelet needs two voxels along an axis.")
    pywt = _library("pywt", "PyWavelets")
    if wavelet not in pywt.wavelist(kind="discrete"):
        raise ConfigError(
            f"wavelet={wavelet!r} is not one of PyWavelets' discrete ones, such as coif1, haar, db2."
        )
    even = np.pad(image, [(0, n % 2 if axis in axes else 0) for axis, n in enumerate(image.shape)], "wrap")
    bands = pywt.swtn(even, wavelet, level=1, axes=axes)[0]
    crop = tuple(slice(n) for n in image.shape)
    letters = str.maketrans("LH", "ad")
    keys = {name: name.removeprefix("wavelet-").translate(letters) for name in band_names(len(axes))}
    return {name: bands[key][crop] for name, key in keys.items()}


def _checked(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image, np.float64)
    if image.ndim != 3 or not image.size:
        raise GeometryError(f"image of shape {image.shape}: need x y z with at least one voxel each.")
    if not np.isfinite(image).all():
        raise ValuesError(
            f"the image is NaN or infinite in {int((~np.isfinite(image)).sum())} voxels. Replace them before filtering."
        )
    return image


def _library(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"radiomic filters take {package}, which is not installed. pip install 'ukbob-jax[radiomics]'."
        ) from None
