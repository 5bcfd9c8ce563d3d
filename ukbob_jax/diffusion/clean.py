"""Noise, ringing, the receive field and what is not brain, by dipy and SimpleITK; series are `x y z n` float32."""

import warnings

import numpy as np

from ukbob_jax.diffusion.itk_images import to_itk
from ukbob_jax.diffusion.library import load

RADIUS = 2  # voxels, of the patches of MP-PCA: 5 x 5 x 5, as the authors have it
MEDIAN_RADIUS = 4  # voxels, and passes: dipy's for brains at 2 mm, of some 60 slices
WIDTHS = 12  # radii in the shortest axis, at least: a wider filter washes the brain away
PASSES = 4
SHRINK = 64 * 1024  # voxels that N4 looks at, about; the field is smooth


def denoise(series: np.ndarray) -> np.ndarray:
    """Remove noise by the Marchenko-Pastur law (Veraart et al. 2016, NeuroImage 142, 394).

    Along an axis shorter than five voxels patches are as wide as they can be, and as many volumes as a patch has voxels are
    too many for the law; dipy's warning says so.
    """
    radius = [min(RADIUS, (n - 1) // 2) for n in series.shape[:3]]
    mppca = load("dipy.denoise.localpca").mppca
    return np.asarray(mppca(series, patch_radius=radius), np.float32)


def remove_ringing(series: np.ndarray, slice_axis: int) -> np.ndarray:
    """Remove Gibbs ringing by shifts below a voxel (Kellner et al. 2016, MRM 76, 1574), within slices.

    Args:
        slice_axis: the axis across slices, 0 to 2, as the scan was taken.
    """
    gibbs = load("dipy.denoise.gibbs").gibbs_removal
    return np.asarray(gibbs(series, slice_axis=slice_axis, inplace=False, num_processes=1), np.float32)


def receive_field(image: np.ndarray, affine: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The field that makes an image uneven, `x y z`, mean 1 in the mask, by N4 (Tustison et al. 2010, IEEE TMI 29, 1310).

    Args:
        image: without diffusion weighting, `x y z`.
        affine: voxel to RAS+ mm, `4 4`.
        mask: where to look, bool `x y z`.
    """
    sitk = load("SimpleITK")
    full, inside = to_itk(image, affine), to_itk(mask.astype(np.uint8), affine)
    factor = max(1, int((image.size / SHRINK) ** (1 / 3)))
    shrink = [min(factor, max(1, n // 8)) for n in image.shape]
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.SetNumberOfThreads(1)  # sums in one order: the same numbers every time, but for rounding
    correction.SetMaximumNumberOfIterations([50, 50, 30])
    correction.Execute(sitk.Shrink(full, shrink), sitk.Shrink(inside, shrink))
    log_field = sitk.GetArrayFromImage(correction.GetLogBiasFieldAsImage(full)).T  # x y z
    return np.exp(log_field - log_field[mask].mean()).astype(np.float32)


def brain(image: np.ndarray) -> np.ndarray:
    """Where the brain is, bool `x y z`, by a median filter and Otsu's threshold (dipy's `median_otsu`)."""
    median_otsu = load("dipy.segment.mask").median_otsu
    radius = int(np.clip(min(image.shape) // WIDTHS, 1, MEDIAN_RADIUS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # dipy's, about its own defaults
        _, mask = median_otsu(image, median_radius=radius, numpass=PASSES, finalize_mask=True)
    return np.asarray(mask, bool)


def foreground(image: np.ndarray) -> np.ndarray:
    """Where there is signal, bool `x y z`: above Otsu's threshold of the image."""
    sitk = load("SimpleITK")
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.Execute(sitk.GetImageFromArray(np.asarray(image, np.float32)))
    return image > threshold.GetThreshold()
