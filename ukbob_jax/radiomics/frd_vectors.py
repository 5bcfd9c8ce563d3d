"""The radiomic features that Frechet radiomic distance compares: one vector per image and mask.

v1: normalised to a standard deviation of 100, resampled to 2 mm, bins of 5; 77 features of the image, of four Laplacians
of Gaussian and of the bands of a coif1 wavelet: 1001 in 3D. A slice has 385: four bands, and no Laplacian, which needs
four voxels along every axis. v0: 93 features of a slice or volume as it is, bins of 25, and its shape, in 3D here by the
14 features of volumes (107), of a slice by nine of its outline (102).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ukbob_jax.errors import ConfigError, GeometryError, MismatchError, ValuesError
from ukbob_jax.radiomics import filters, outline
from ukbob_jax.radiomics.features import NAMES, features
from ukbob_jax.radiomics.resampling import resample

FAMILIES = ("firstorder", "glcm", "glrlm", "glszm", "ngtdm")
SIGMAS_MM = (2.0, 3.0, 4.0, 5.0)
_NOT_IN_V1 = ("MCC", "SumAverage")  # of the GLCM
_SCALE, _SHIFT, _SPACING_MM, _BIN_WIDTH = 100.0, 300.0, 2.0, 5.0
_MASK = 1


def vector(
    image: np.ndarray,
    mask: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    version: str = "v1",
    affine: np.ndarray | None = None,
    form: str = "corrected",
) -> dict[str, float]:
    """Measure an image within a mask for `frd`; names are pyradiomics'.

    Args:
        image: `x y z`, one contrast; z may be one voxel, a slice.
        mask: `x y z`, where features are taken.
        version: "v1" or "v0".
        affine: (4, 4) of the file; only directions that are not along the axes change rounding when resampling.
        form: "released" adds 13 diagnostics of v1's released program: extremes and means of the whole image before and
            after resampling, and sizes of the mask, which say little of an organ and change with the field of view.

    Raises:
        ConfigError: an option that is none, or SimpleITK or PyWavelets are not installed.
        GeometryError: a line of voxels, a spacing or affine that is none, or a volume of which v1's grid has fewer than four
            voxels along an axis, too few for a Laplacian.
        MismatchError: image and mask have different shapes.
        ValuesError: an empty mask, a constant image or values that are not finite.
    """
    for name, value, allowed in (
        ("version", version, ("v0", "v1")),
        ("form", form, ("corrected", "released")),
    ):
        if value not in allowed:
            raise ConfigError(f"{name}={value!r}: choose one of {', '.join(allowed)}.")
    image, mask = np.asarray(image, np.float64), np.asarray(mask)
    if image.shape != mask.shape:
        raise MismatchError(
            f"image of shape {image.shape}, mask of shape {mask.shape}: both must be one x y z grid."
        )
    if image.ndim != 3 or sum(n > 1 for n in image.shape) < 2:
        raise GeometryError(
            f"image of shape {image.shape}: need x y z, with more than one voxel along two axes or three. "
            "A slice has one voxel along the third."
        )
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise GeometryError(f"spacing_mm={spacing_mm}: need three positive numbers, in mm along x, y, z.")
    if affine is not None and (np.shape(affine) != (4, 4) or not abs(np.linalg.det(affine)) > 0):
        raise GeometryError(f"affine of shape {np.shape(affine)}: need a 4 x 4 matrix that can be inverted.")
    if mask.dtype.kind == "f" and not np.isfinite(mask).all():
        raise ValuesError("the mask is NaN or infinite somewhere: give integers or bool.")
    mask = (mask != 0).astype(np.uint8)
    if mask.sum() < 2:
        raise ValuesError(
            f"the mask has {int(mask.sum())} voxels: features need two or more. Leave the image out."
        )
    if version == "v0":
        return _v0(image, mask, spacing_mm)
    return _v1(image, mask, spacing_mm, affine, form == "released")


def names(version: str = "v1", *, is_slice: bool = False) -> tuple[str, ...]:
    """Features of `vector` in the order of a table, in the corrected form."""
    if version == "v0":
        families = (*FAMILIES, "gldm") if is_slice else ("shape", *FAMILIES, "gldm")
        plain = tuple(f"{family}_{name}" for family in families for name in NAMES[family])
        return plain + outline.NAMES if is_slice else plain
    laplacians = () if is_slice else tuple(map(filters.laplacian_name, SIGMAS_MM))
    return tuple(
        f"{image}_{family}_{name}"
        for image in (filters.ORIGINAL, *laplacians, *filters.band_names(2 if is_slice else 3))
        for family in FAMILIES
        for name in NAMES[family]
        if name not in _NOT_IN_V1
    )


def parts(name: str) -> tuple[str, str, str]:
    """Split a name into image, family and feature: "wavelet-LLH_glcm_Idm" is "wavelet-LLH", "glcm", "Idm"."""
    found = name.split("_")
    return (found[0], found[1], found[2]) if len(found) == 3 else (filters.ORIGINAL, found[0], found[1])


def images(image: np.ndarray, spacing_mm: Sequence[float]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the image and its filtered versions, by name: 13 of a volume, five of a slice."""
    yield filters.ORIGINAL, image
    if min(image.shape) >= filters.LEAST:
        for sigma in SIGMAS_MM:
            yield filters.laplacian_name(sigma), filters.laplacian(image, spacing_mm, sigma)
    yield from filters.wavelet_bands(image).items()


def _v1(
    image: np.ndarray,
    mask: np.ndarray,
    spacing_mm: Sequence[float],
    affine: np.ndarray | None,
    released: bool,
) -> dict[str, float]:
    spread = image.std(ddof=1)
    if not np.isfinite(spread) or spread == 0:
        raise ValuesError("the image cannot be normalised: it is constant, or NaN or infinite somewhere.")
    scaled = (image - image.mean()) / spread * _SCALE
    new_mm = [_SPACING_MM if n > 1 else 0 for n in image.shape]  # 0 keeps a slice's thickness
    affine = np.diag([*spacing_mm, 1.0]) if affine is None else affine
    small, inside, spacing = resample(scaled, mask, spacing_mm, new_mm, affine=affine, around=_MASK)
    if not released and 1 not in image.shape and min(small.shape) < filters.LEAST:
        raise GeometryError(
            f"image of shape {image.shape}: at {_SPACING_MM:g} mm it has {min(small.shape)} voxels along an axis, "
            f"and v1 needs {filters.LEAST}. Measure v0, or slices."
        )
    found: dict[str, float] = {}
    if released:
        found |= diagnostics(image, mask, small, inside)
    for name, filtered in images(small, spacing):
        measured = features(
            filtered, inside, spacing,
            bin_width=_BIN_WIDTH, voxel_shift=_SHIFT, classes=(_MASK,), families=FAMILIES,
        )  # fmt: skip
        for family in FAMILIES:
            for feature in NAMES[family]:
                if feature not in _NOT_IN_V1:
                    found[f"{name}_{family}_{feature}"] = float(measured[f"original_{family}_{feature}"][0])
    return found


def _v0(image: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    flat = 1 in image.shape
    families = (*FAMILIES, "gldm") if flat else ("shape", *FAMILIES, "gldm")
    measured = features(image, mask, spacing_mm, classes=(_MASK,), families=families)
    found = {name.removeprefix("original_"): float(value[0]) for name, value in measured.items()}
    if flat:
        axes = [axis for axis, n in enumerate(image.shape) if n > 1]
        found |= outline.outline(mask.squeeze().astype(bool), [spacing_mm[axis] for axis in axes])
    return found


def diagnostics(
    image: np.ndarray, mask: np.ndarray, small: np.ndarray, inside: np.ndarray
) -> dict[str, float]:
    """Return the 13 numbers about image and mask that the released program keeps among its features."""
    import cc3d

    def pieces(volume: np.ndarray) -> float:
        return float(cc3d.connected_components(volume, connectivity=26, return_N=True)[1])

    values = small[inside > 0]
    found = {}
    for when, volume, where in (("original", image, mask), ("interpolated", small, inside)):
        found |= {
            f"diagnostics_Image-{when}_Mean": volume.mean(),
            f"diagnostics_Image-{when}_Minimum": volume.min(),
            f"diagnostics_Image-{when}_Maximum": volume.max(),
            f"diagnostics_Mask-{when}_VoxelNum": where.sum(),
            f"diagnostics_Mask-{when}_VolumeNum": pieces(where),
        }
    for name, value in (("Mean", values.mean()), ("Minimum", values.min()), ("Maximum", values.max())):
        found[f"diagnostics_Mask-interpolated_{name}"] = value
    return {name: float(value) for name, value in found.items()}
