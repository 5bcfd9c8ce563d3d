"""All volumes of a series onto its first one without weighting, by mutual information; gradients turn along.

Weighted volumes are registered to their mean, which they resemble, and that to the reference. The direction of a gradient
is fixed in the scanner while the head turns: seen from the head of the reference it turned the other way (Leemans and
Jones 2009, MRM 61, 1336).
"""

from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.diffusion.gradients import Gradients
from ukbob_jax.diffusion.itk_images import LPS, to_itk
from ukbob_jax.diffusion.library import load

BINS = 32  # of the joint histogram
ITERATIONS = 200
STEP_MM = 1e-4  # the last one
SEED = 1  # of places within the grid that is looked at
LOOKED_AT = 1 << 17  # voxels whose values are compared, at most
FEWEST = 4  # voxels along an axis that can be smoothed
COARSE = 32  # voxels: an image is halved for a first look where every axis has as many
SMOOTH_VOXELS = (1.0, 0.0)  # of the first and the second look
LOST = 0.9  # of the mutual information at rest; a search that ends with less went astray
BELIEVED = 0.25  # of the shortest side of the field of view


class Aligned(NamedTuple):
    """A series whose volumes lie on one another.

    Attributes:
        series: `x y z n`, float32.
        gradients: turned with the volumes.
        moved_mm: how far the corners of each volume moved at most, float64 `n`; NaN: further than can be believed, so the
            volume stayed where it was.
    """

    series: np.ndarray
    gradients: Gradients
    moved_mm: np.ndarray


def align(series: np.ndarray, affine: np.ndarray, gradients: Gradients, unweighted: np.ndarray) -> Aligned:
    """Register every volume to the first without weighting and resample it there with cubic B-splines; no value is below 0.

    A motion that does not raise mutual information is left out, and so is one that moves a corner further than
    `BELIEVED` of the shortest side of the field of view, where few slices or small pieces do not hold a volume.

    Args:
        series: `x y z n`, float32.
        affine: voxel to RAS+ mm, `4 4`.
        gradients: of the volumes.
        unweighted: which volumes count as b = 0, bool `n`.
    """
    reference = int(unweighted.argmax())
    mean = to_itk(series[..., ~unweighted].mean(axis=-1), affine)
    fixed = to_itk(series[..., reference], affine)
    limit = BELIEVED * float((np.linalg.norm(affine[:3, :3], axis=0) * series.shape[:3]).min())
    to_mean = register(fixed, mean)
    out, directions, moved = series.copy(), gradients.directions.copy(), np.zeros(series.shape[3])
    for n in np.flatnonzero(np.arange(series.shape[3]) != reference):
        moving = to_itk(series[..., n], affine)
        matrix = register(fixed if unweighted[n] else mean, moving)
        before = np.eye(4) if unweighted[n] else to_mean
        if matrix is None or before is None:
            moved[n] = np.nan
            continue
        matrix = matrix @ before  # from the reference to the mean to the volume
        moved[n] = _largest_step_mm(matrix, affine, series.shape[:3])
        if moved[n] > limit:
            moved[n] = np.nan
        elif moved[n] > 0:
            out[..., n] = _resample(fixed, moving, matrix)
            directions[n] = matrix[:3, :3].T @ directions[n]
    return Aligned(out, Gradients(gradients.b_s_mm2, directions), moved)


def register(fixed: Any, moving: Any) -> np.ndarray | None:
    """The rigid motion from places in `fixed` to the same tissue in `moving`, images of SimpleITK, `4 4`, RAS+ mm.

    None: it cannot be found, as in fewer slices than `FEWEST` or where images hold nothing.
    """
    sitk = load("SimpleITK")
    if min(fixed.GetSize()) < FEWEST:
        return None
    start = sitk.Euler3DTransform()
    start.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    method = _method(sitk)
    if (share := LOOKED_AT / fixed.GetNumberOfPixels()) < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentagePerLevel((min(1.0, 8 * share), share), SEED)
    method.SetShrinkFactorsPerLevel((2, 1) if min(fixed.GetSize()) >= COARSE else (1, 1))
    method.SetSmoothingSigmasPerLevel(SMOOTH_VOXELS)
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(False)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=STEP_MM, numberOfIterations=ITERATIONS
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    try:
        found = method.Execute(fixed, moving)
        before, after = (_information(sitk, fixed, moving, transform) for transform in (start, found))
    except RuntimeError:  # ITK: the images came to lie apart, or are of one value
        return None
    if after < LOST * before:
        return None
    return _matrix(found) if after > before else np.eye(4)


def _method(sitk: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums in one order: the same numbers every time, but for rounding
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _information(sitk: Any, fixed: Any, moving: Any, transform: Any) -> float:
    """Mutual information of two images under a transform."""
    method = _method(sitk)
    method.SetInitialTransform(transform)
    return -method.MetricEvaluate(fixed, moving)


def _matrix(transform: Any) -> np.ndarray:
    """A transform of ITK as a matrix of the RAS+ world, `4 4`."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - origin for axis in np.eye(3)]
    matrix = np.eye(4)
    matrix[:3, :3] = LPS @ np.stack(columns, axis=1) @ LPS
    matrix[:3, 3] = LPS @ origin
    return matrix


def _resample(fixed: Any, moving: Any, matrix: np.ndarray) -> np.ndarray:
    """`moving` where the matrix says, on the grid of `fixed`, `x y z` float32; its border repeats outside."""
    sitk = load("SimpleITK")
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((LPS @ matrix[:3, :3] @ LPS).ravel().tolist())
    transform.SetTranslation((LPS @ matrix[:3, 3]).tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(fixed)
    resampler.SetTransform(transform)
    resampler.SetInterpolator(sitk.sitkBSpline)
    resampler.UseNearestNeighborExtrapolatorOn()
    return np.maximum(sitk.GetArrayFromImage(resampler.Execute(moving)).T, 0.0)


def _largest_step_mm(matrix: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> float:
    corners = np.array([(x, y, z, 1.0) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    world = (corners * [*(n - 1 for n in shape), 1]) @ affine.T
    return float(np.linalg.norm((world @ matrix.T - world)[:, :3], axis=1).max())
