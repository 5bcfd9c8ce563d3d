"""Radiomic features of all organs of a scan in one call.

    found = bob.radiomics.features(image, labels, spacing_mm, bin_width=5.0)     # labels: 0..72, as everywhere here
    found["original_glcm_Contrast"][26]                                          # of the organ with id 26
    bob.radiomics.features(image, mask, spacing_mm, classes=(1,), families=("firstorder", "glcm"))   # arrays (1,)

The device counts (integers, exact), for all organs at once; the formulas over the few numbers counted are float64.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import GeometryError, MismatchError, ValuesError
from ukbob_jax.radiomics import (
    directions,
    discretisation,
    first_order,
    glcm,
    gldm,
    glrlm,
    glszm,
    neighbours,
    ngtdm,
    regions,
    shape,
)
from ukbob_jax.radiomics.regions import Cells, Regions
from ukbob_jax.radiomics.resampling import resample

NAMES = {
    "firstorder": first_order.NAMES,
    "shape": shape.NAMES,
    "glcm": glcm.NAMES,
    "glrlm": tuple(glrlm.NAMES),
    "glszm": tuple(glszm.NAMES),
    "ngtdm": ngtdm.NAMES,
    "gldm": tuple(gldm.NAMES),
}
ALL = tuple(NAMES)


def features(
    image: np.ndarray,
    labels: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    bin_width: float = 25.0,
    bin_count: int | None = None,
    classes: Sequence[int] | None = None,
    families: Sequence[str] = ALL,
    definition: str = "pyradiomics",
    normalise_scale: float | None = None,
    voxel_shift: float = 0.0,
    distances: Sequence[int] = (1,),
    alpha: int = 0,
    weighting: str = "",
    merge: bool = False,
    resample_mm: float | Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """Compute the radiomic features of every organ of a scan.

    Definitions and names are pyradiomics' (van Griethuysen et al. 2017); `definition="ibsi"` changes what differs in the
    IBSI reference manual (Zwanenburg et al. 2020): bins of a width start at the least value, kurtosis is excess kurtosis,
    axis lengths divide by n - 1, the mesh is closed, NGTDM leaves out voxels without a neighbour, GLRLM no direction.

    Args:
        image: `x y z`, one contrast.
        labels: `x y z`, integers or bool; 0 is background and 255 is ignored.
        spacing_mm: voxel size along x y z.
        bin_width: width of grey-level bins, in the image's unit.
        bin_count: number of bins over each organ's range instead.
        classes: labels to measure; None: all but background.
        families: of "firstorder", "shape", "glcm", "glrlm", "glszm", "ngtdm", "gldm".
        definition: "pyradiomics" or "ibsi".
        normalise_scale: bring the whole image to mean 0 and this standard deviation first.
        voxel_shift: added to intensities in Energy, TotalEnergy and RootMeanSquared.
        distances: how far neighbours are, in voxels along the farthest axis; GLCM, NGTDM, GLDM.
        alpha: levels that differ by so much still depend on each other; GLDM.
        weighting: "" averages over directions; "manhattan", "euclidean", "infinity", "no_weighting" sum their matrices,
            weighted by distance; GLCM, GLRLM.
        merge: sum the matrices of all directions and compute features once, IBSI's merged form; GLCM, GLRLM.
        resample_mm: resample image and labels to this spacing first (`resample`; needs SimpleITK).

    Returns:
        By name, such as "original_glcm_Contrast", float64 arrays: (len(classes),), or where `classes` is None an entry per
        label id (73, or more where labels are greater). NaN where an organ is absent, or has a single voxel.

    Raises:
        MismatchError: image and labels have different shapes.
        GeometryError: not three axes, or a spacing that is none.
        ValuesError: labels are not integers, no organ is there, NaN or infinity inside an organ, or an option that is none.
    """
    image, labels, ids, length = _checked(image, labels, spacing_mm, classes)
    check_options(
        families=families, bin_width=bin_width, bin_count=bin_count, definition=definition, merge=merge,
        normalise_scale=normalise_scale, voxel_shift=voxel_shift, distances=distances, alpha=alpha,
        weighting=weighting,
    )  # fmt: skip
    distances = tuple(int(d) for d in distances)
    if normalise_scale is not None:
        image = _normalised(image, normalise_scale)
    if resample_mm is not None:
        image, labels, spacing_mm = resample(image, labels, spacing_mm, resample_mm)
    there = _measurable(labels, ids)
    measured = regions.collect(image, labels, spacing_mm, ids[there], max(max(distances), 1))
    chosen, ibsi = [family for family in ALL if family in families], definition == "ibsi"
    found: dict[str, np.ndarray] = {}
    if chosen != ["shape"]:
        _check_finite(measured, ids[there])
        least = np.minimum.reduceat(measured.by_value, measured.starts)
        most = np.maximum.reduceat(measured.by_value, measured.starts)
        level = discretisation.grey_levels(
            measured.values, measured.organ, least, most,
            bin_width=bin_width, bin_count=bin_count, definition=definition,
        )  # fmt: skip
        cells = regions.cells(level, measured.organ, measured.count)
        found = _of_intensities(
            measured, cells, chosen, definition, voxel_shift, distances, alpha, weighting, merge
        )
    if "shape" in chosen:
        found |= _named("shape", shape.shape(measured, closed=ibsi, unbiased=ibsi))
    place = np.flatnonzero(there) if classes is not None else ids[there]
    return {
        f"original_{family}_{name}": _spread(found[f"original_{family}_{name}"], place, length)
        for family in chosen
        for name in NAMES[family]
    }


def _of_intensities(
    measured: Regions,
    cells: Cells,
    chosen: list[str],
    definition: str,
    voxel_shift: float,
    distances: Sequence[int],
    alpha: int,
    weighting: str,
    merge: bool,
) -> dict[str, np.ndarray]:
    """Compute all families but shape, of the organs that are there."""
    ibsi = definition == "ibsi"
    found: dict[str, np.ndarray] = {}
    if "firstorder" in chosen:
        values = first_order.first_order(measured, cells, shift=voxel_shift, excess=ibsi)
        found |= _named("firstorder", values)
    if {"glcm", "ngtdm", "gldm"} & set(chosen):
        steps = neighbours.offsets(tuple(distances))
        counts = neighbours.count(measured, cells, steps, int(alpha))
        if "glcm" in chosen:
            values = glcm.glcm(counts.pairs, cells, steps, measured.spacing_mm, weighting, merge)
            found |= _named("glcm", values)
        if "ngtdm" in chosen:
            voxels = cells.voxels - counts.alone if ibsi else cells.voxels
            found |= _named("ngtdm", ngtdm.ngtdm(voxels, counts.difference, cells))
        if "gldm" in chosen:
            found |= _named("gldm", gldm.gldm(counts.dependence, cells))
    if "glrlm" in chosen:
        found |= _named("glrlm", glrlm.glrlm(measured, cells, weighting, merge, flat_too=ibsi))
    if "glszm" in chosen:
        found |= _named("glszm", glszm.glszm(measured, cells))
    return found


def _named(family: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"original_{family}_{name}": value for name, value in values.items()}


def _spread(values: np.ndarray, place: np.ndarray, length: int) -> np.ndarray:
    """Put values where their organs are listed, NaN elsewhere."""
    whole = np.full(length, np.nan)
    whole[place] = values
    return whole


def _checked(
    image: np.ndarray, labels: np.ndarray, spacing_mm: Sequence[float], classes: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return image, labels, the label ids to measure and the length of what is returned."""
    image, labels = np.asarray(image), np.asarray(labels)
    if image.shape != labels.shape:
        raise MismatchError(
            f"image of shape {image.shape}, labels of shape {labels.shape}: both must be one x y z grid. "
            "Resample one onto the other, or choose a contrast."
        )
    if image.ndim != 3 or not image.size:
        raise GeometryError(f"image of shape {image.shape}: need x y z with at least one voxel each.")
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValuesError(
            f"labels are {labels.dtype}: need integers. Round them, or read them with kind='label'."
        )
    if np.iscomplexobj(image):
        raise ValuesError(f"the image is {image.dtype}: need real numbers. Take its magnitude.")
    if image.dtype.kind not in "biuf":
        raise ValuesError(f"the image is {image.dtype}: need numbers, such as float32.")
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise GeometryError(f"spacing_mm={spacing_mm}: need three positive numbers, in mm along x, y, z.")
    if labels.min() < 0:
        raise ValuesError(f"label {labels.min()} is negative: labels are 0 and above. Map them first.")
    if classes is not None:
        ids = np.asarray(classes)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or (ids <= 0).any() or len(np.unique(ids)) < ids.size:
            raise ValuesError(f"classes={classes}: give different label ids in a list, all above 0.")
        ids = ids.astype(np.int64)
        return image, labels, ids, len(ids)
    if labels.max() > np.iinfo(np.uint16).max:
        raise ValuesError(f"label {labels.max()}: give the labels to measure as classes=(...).")
    length = max(anatomy.NUM_CLASSES, int(labels[labels != anatomy.IGNORE].max(initial=0)) + 1)
    ids = np.arange(1, length)
    return image, labels, ids[ids != anatomy.IGNORE], length


def check_options(
    *,
    families: Sequence[str],
    bin_width: float,
    bin_count: int | None,
    definition: str,
    normalise_scale: float | None,
    voxel_shift: float,
    distances: Sequence[int],
    alpha: int,
    weighting: str,
    merge: bool,
) -> None:
    """Refuse options of `features` that are none; each message begins with the option's name and "=".

    Raises:
        ValuesError: naming the first.
    """
    unknown = [family for family in families if family not in ALL]
    if isinstance(families, str) or unknown or not families:
        raise ValuesError(f"families={families!r}: choose some of {', '.join(ALL)}.")
    discretisation.check(bin_width, bin_count, definition)
    if normalise_scale is not None and not 0 < normalise_scale < np.inf:
        raise ValuesError(f"normalise_scale={normalise_scale}: give a standard deviation above 0.")
    if not np.isfinite(voxel_shift):
        raise ValuesError(f"voxel_shift={voxel_shift}: give a number in the image's unit.")
    if not np.size(distances) or np.ndim(distances) != 1 or not all(_whole(d, 1, 16) for d in distances):
        raise ValuesError(f"distances={distances}: give whole numbers of voxels, 1 to 16, in a list.")
    if not _whole(alpha, 0, discretisation.MOST_LEVELS):
        raise ValuesError(
            f"alpha={alpha}: give a whole number of grey levels, 0 to {discretisation.MOST_LEVELS}."
        )
    if weighting not in directions.WEIGHTINGS:
        raise ValuesError(f"weighting={weighting!r}: choose one of {directions.WEIGHTINGS}.")
    if merge and weighting:
        raise ValuesError(f"merge=True with weighting={weighting!r}: both sum the directions. Choose one.")


def _whole(number: float, low: int, high: int) -> bool:
    return low <= number <= high and number == int(number)


def _measurable(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Tell which of `ids` have two voxels or more; warn of those with one.

    Raises:
        ValuesError: none has.
    """
    greatest = max(int(labels.max()), int(ids.max()))
    if greatest < 2**16:
        voxels = np.bincount(labels.ravel(), minlength=greatest + 1)[ids]
    else:
        found, number = np.unique(labels, return_counts=True)
        voxels = np.array([number[found == i].sum() for i in ids])
    if not voxels.any():
        raise ValuesError(
            "labels have no voxel of any class to measure. Give labels that do, or other classes."
        )
    if (voxels < 2).all():
        raise ValuesError(
            f"class {ids[voxels == 1][0]} has one voxel, and no other class has more: a single voxel has no features."
        )
    if (voxels == 1).any():
        single = ", ".join(str(i) for i in ids[voxels == 1])
        warnings.warn(
            f"classes of a single voxel have no features, their values are NaN: {single}", stacklevel=3
        )
    return voxels > 1


def _check_finite(measured: Regions, ids: np.ndarray) -> None:
    wrong = ~np.isfinite(measured.values)
    if wrong.any():
        organ = ids[measured.organ[wrong][0]]
        raise ValuesError(
            f"the image is NaN or infinite in {int(wrong.sum())} voxels of organs, the first of class {organ}. "
            "Replace them, or leave these voxels out of the labels."
        )


def _normalised(image: np.ndarray, scale: float) -> np.ndarray:
    """Bring the whole image to mean 0 and standard deviation `scale` (divided by n - 1)."""
    values = image.astype(np.float64)
    spread = values.std(ddof=1)
    if not np.isfinite(spread) or spread == 0:
        raise ValuesError("the image cannot be normalised: it is constant, or NaN or infinite somewhere.")
    return (values - values.mean()) / spread * scale
