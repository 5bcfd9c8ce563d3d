"""From files to the array that an nnU-Net sees: read, transpose, crop to non-zero, normalise, resample; in this order.

Axes: `c` channels, then z y x of the file in the order of `transpose_forward`. Voxels are taken as they are stored; only
the readers with "WithReorient" turn them.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from nibabel import orientations
from scipy import ndimage

from ukbob_jax.errors import MismatchError, ValuesError
from ukbob_jax.inference.nnunet import labels, resample
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.volumes import array_checks
from ukbob_jax.volumes.nifti import check_same_space, read_volume
from ukbob_jax.volumes.volume import Volume

ScanInput = str | os.PathLike | Volume
_UNIT_MM = {1: 1000.0, 3: 0.001}  # NIfTI's codes of metres and micrometres; all else is taken as mm
_SMALLEST = 1e-8  # a spread below it divides as this


def run(
    scans: ScanInput | Sequence[ScanInput], plans: NnunetPlans, nan: Literal["refuse", "zero"] = "refuse"
) -> tuple[np.ndarray, dict[str, Any]]:
    """Preprocess one case.

    Args:
        scans: one file or Volume per channel, in the order of `plans.channels`; or one 4-D for all.
        plans: of the model.
        nan: "zero" sets NaN and infinite voxels of files to 0 with a warning instead of refusing the file.
    Returns:
        Array c z y x, float32, and its properties, as `crop` says.
    Raises:
        MismatchError, ValuesError, FileError, GeometryError: as `crop` and `finish`.
    """
    array, properties = crop(scans, plans, nan)
    return finish(array, properties, plans), properties


def crop(
    scans: ScanInput | Sequence[ScanInput], plans: NnunetPlans, nan: Literal["refuse", "zero"] = "refuse"
) -> tuple[np.ndarray, dict[str, Any]]:
    """The first half of `run`, before normalisation: the box of voxels that are not 0.

    Returns:
        Array c z y x, float32, and its properties: nnU-Net's own `spacing` (z y x of the file, mm),
        `shape_before_cropping`, `bbox_used_for_cropping`, `shape_after_cropping_and_before_resampling`; besides `grid`,
        a Volume without voxels of its own on whose grid labels are written, `nonzero`, bool z y x after cropping,
        where any channel is not 0, and `name` of the files for messages.
    Raises:
        MismatchError: another number of channels, or channels on different grids.
        FileError, GeometryError, ValuesError: as `read_volume`.
    """
    stored, names = read(scans, plans.channels, nan)
    first = stored[0]
    turned = [volume.to_ras() for volume in stored] if plans.reader.endswith("WithReorient") else stored
    array = _together(turned).transpose(0, *(axis + 1 for axis in plans.transpose_forward))
    nonzero = _nonzero(array)
    box = _box(nonzero)
    inside = tuple(slice(low, high) for low, high in box)
    properties: dict[str, Any] = {
        "spacing": _spacing(first, turned[0], plans.reader),
        "shape_before_cropping": array.shape[1:],
        "bbox_used_for_cropping": [list(pair) for pair in box],
        "nonzero": nonzero[inside],
        "grid": dataclasses.replace(first, array=np.broadcast_to(np.uint8(0), first.shape)),
        "name": ", ".join(names),
    }
    array = array[(slice(None), *inside)]
    properties["shape_after_cropping_and_before_resampling"] = array.shape[1:]
    return array, properties


def finish(
    array: np.ndarray, properties: dict[str, Any], plans: NnunetPlans, labelled: np.ndarray | None = None
) -> np.ndarray:
    """The second half of `run`: normalise, then resample; `array` of `crop` may be overwritten.

    Args:
        array: of `crop`.
        properties: of `crop`.
        plans: of the model.
        labelled: z y x after cropping, where labels that are known (of a training case, or of a cascade's previous
            stage) are not background: there a voxel counts as inside the mask of z-score, as in nnU-Net, also if it is 0.
    Returns:
        Array c z y x, float32.
    Raises:
        ValuesError: voxels that the normalisation does not take.
        FileError: an argument of the plans' resampling that is not known.
    """
    array = _normalize(array, properties["nonzero"], labelled, plans, properties["name"])
    current = [properties["spacing"][axis] for axis in plans.transpose_forward]
    target = full_spacing(plans, current)
    shape = resample.new_shape(array.shape[1:], current, target)
    where = f"{plans.folder}: {plans.configuration}"
    how = resample.axes(plans.resampling_data, array.shape[1:], shape, current, target, where)
    return resample.image(array, how)


def finish_cascade(
    array: np.ndarray, properties: dict[str, Any], found: Volume, plans: NnunetPlans
) -> np.ndarray:
    """As `finish`, and with a mask for each foreground label of a cascade's previous stage, c z y x.

    Args:
        array: of `crop`.
        properties: of `crop`.
        found: labels of the previous stage, on the image's grid.
        plans: of this stage.
    """
    turned = found.to_ras() if plans.reader.endswith("WithReorient") else found
    whole = turned.array.T.transpose(plans.transpose_forward)
    whole = whole[tuple(slice(*pair) for pair in properties["bbox_used_for_cropping"])]
    array = finish(array, properties, plans, whole != 0)
    current = [properties["spacing"][axis] for axis in plans.transpose_forward]
    where = f"{plans.folder}: {plans.configuration}: resampling_fn_seg"
    target, how = full_spacing(plans, current), plans.resampling_labels
    ids = labels.on_array_grid(whole, properties["nonzero"], array.shape[1:], current, target, how, where)
    masks = np.stack([ids == label for label in sorted(plans.labels) if label]).astype(np.float32)
    return np.concatenate([array, masks])


def full_spacing(plans: NnunetPlans, current: Sequence[float]) -> list[float]:
    """The plans' spacing with three numbers: a network of slices keeps the distance of slices."""
    return [current[0], *plans.spacing] if len(plans.spacing) == 2 else list(plans.spacing)


def read(
    scans: ScanInput | Sequence[ScanInput],
    channels: Sequence[str],
    nan: Literal["refuse", "zero"] = "refuse",
) -> tuple[list[Volume], list[str]]:
    """The volumes of a case as they are stored, x y z or x y z c, and their names for messages.

    Args:
        scans: as for `run`.
        channels: names of those that the model takes; the volumes have as many in all.
        nan: as for `run`.
    Raises:
        MismatchError, FileError, GeometryError, ValuesError: as `run`.
    """
    sources = list(scans) if isinstance(scans, Sequence) and not isinstance(scans, str) else [scans]
    names = [repr(s) if isinstance(s, Volume) else str(s) for s in sources]
    stored = []
    for source, name in zip(sources, names):
        if isinstance(source, Volume):  # files are checked where they are read
            array_checks.check_finite(name, source.array)
            stored.append(source)
        else:
            stored.append(_open(source, nan))
    count = sum(volume.array.shape[3] if volume.array.ndim == 4 else 1 for volume in stored)
    if count != len(channels):
        raise MismatchError(
            f"{', '.join(names)}: {count} channels, but this model takes {len(channels)} "
            f"({', '.join(channels)}). Give one file per channel in this order, or one 4-D file."
        )
    for volume, name in zip(stored[1:], names[1:]):
        check_same_space(stored[0], volume, names[0], name)
    return stored, names


def _open(source: str | os.PathLike, nan: Literal["refuse", "zero"]) -> Volume:
    """A file, or the DICOM series in a folder."""
    if pathlib.Path(source).is_dir():
        from ukbob_jax.volumes.dicom import read_series  # pydicom is optional

        return read_series(source)
    return read_volume(source, channels=True, nan=nan)


def _together(volumes: Sequence[Volume]) -> np.ndarray:
    """All channels, c z y x, float32."""
    whole = [v.array if v.array.ndim == 4 else v.array[..., None] for v in volumes]
    channels = [array[..., c] for array in whole for c in range(array.shape[3])]
    out = np.empty((len(channels), *channels[0].shape[::-1]), np.float32)
    for number, channel in enumerate(channels):
        out[number] = channel.T
    return out


def _spacing(stored: Volume, turned: Volume, reader: str) -> list[float]:
    """Of axes z y x, mm: what the reader takes from the header, which differs from the affine's in the last digits."""
    if stored.header is None:  # an affine's columns give 0.8000000000000002
        return [float(f"{s:.10g}") for s in turned.spacing_mm[::-1]]
    unit = _UNIT_MM.get(stored.header.unit, 1.0)
    if reader == "NibabelIOWithReorient" and stored.orientation != "RAS":  # its new header is of the affine
        return [float(np.float32(s / unit)) for s in turned.spacing_mm[::-1]]
    unit = unit if reader.startswith("SimpleITK") else 1.0
    own = [abs(float(np.float32(s))) * unit for s in stored.header.pixdim[1:]]
    if turned is not stored:  # in the order of the axes of RAS
        change = orientations.io_orientation(stored.affine)[:, 0].astype(int)
        own = [own[int(np.flatnonzero(change == axis)[0])] for axis in range(3)]
    return own[::-1]


def _nonzero(array: np.ndarray) -> np.ndarray:
    """Where any channel is not exactly 0; holes are filled where the mask is looked at."""
    found = array[0] != 0
    for channel in array[1:]:
        found |= channel != 0
    return found


def _box(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last index along each axis; all of it where nothing is in the mask."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append((int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, mask.shape[axis]))
    return box


def _normalize(
    array: np.ndarray, nonzero: np.ndarray, labelled: np.ndarray | None, plans: NnunetPlans, name: str
) -> np.ndarray:
    """Every channel by its scheme, c z y x float32."""
    masked = [
        s == "ZScoreNormalization" and m for s, m in zip(plans.normalization_schemes, plans.use_mask_for_norm)
    ]
    mask = ndimage.binary_fill_holes(nonzero) if any(masked) else None
    if mask is not None and labelled is not None:
        mask = mask | labelled
    out = np.ascontiguousarray(array)
    for number, (image, scheme) in enumerate(zip(out, plans.normalization_schemes)):
        if scheme == "ZScoreNormalization":
            _z_score(image, mask if masked[number] else None)
        elif scheme == "CTNormalization":
            known = plans.intensities[number]
            np.clip(image, known["percentile_00_5"], known["percentile_99_5"], out=image)
            image -= np.float32(known["mean"])
            image /= np.float32(max(known["std"], _SMALLEST))
        elif scheme == "RescaleTo01Normalization":
            image -= image.min()
            image /= max(image.max(), np.float32(_SMALLEST))
        elif scheme == "RGBTo01Normalization":
            if image.min() < 0 or image.max() > 255:
                raise ValuesError(
                    f"{name}: channel {number} has values from {image.min():g} to {image.max():g}; this model takes "
                    "colours from 0 to 255."
                )
            image /= np.float32(255)
    return out


def _z_score(image: np.ndarray, mask: np.ndarray | None) -> None:
    """Mean 0 and standard deviation 1, of the voxels in the mask; those outside keep their value."""
    if mask is None:
        mean, spread = image.mean(), image.std()
        image -= mean
        image /= max(spread, np.float32(_SMALLEST))
        return
    values = image[mask]
    if values.size:
        image[mask] = (values - values.mean()) / max(values.std(), np.float32(_SMALLEST))
