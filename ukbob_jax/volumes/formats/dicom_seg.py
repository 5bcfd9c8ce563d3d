"""DICOM segmentations as label maps: binary segments, and the label map object of 2024's standard."""

import pathlib
from typing import Any

import numpy as np

from ukbob_jax.errors import FileError, GeometryError, ValuesError
from ukbob_jax.volumes.formats import Stored, is_dicom, library

SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IN_PLACE_MM = 0.01  # slices of a segmentation may lie this far from their grid, by rounding in the header


def read(path: pathlib.Path, threshold: float | None = None) -> Stored:
    """The segments as ids on the grid that their frames span; slices without a frame are background.

    Args:
        path: one DICOM object.
        threshold: fraction of a voxel from which a fractional segment counts; None refuses such objects.
    Raises:
        FileError: no DICOM segmentation, damaged, or pydicom is not installed.
        GeometryError: frames that do not form one grid.
        ValuesError: segments that overlap, or fractional ones without a threshold.
    """
    if not is_dicom(path):
        raise FileError(f"{path}: not a DICOM file.")
    found = _dataset(path)
    kind = found.get("SegmentationType", "")
    if kind == "FRACTIONAL" and threshold is None:
        raise ValuesError(
            f"{path}: fractional segments, which are no labels; read them with a threshold "
            "(volumes.formats.dicom_seg.read)."
        )
    frames = np.asarray(found.pixel_array)
    frames = frames[None] if frames.ndim == 2 else frames  # f rows columns
    if kind == "FRACTIONAL":
        frames = frames >= float(threshold or 0) * int(found.MaximumFractionalValue)
    names = _names(found)
    padding = found.get("PixelPaddingValue")
    background = 0 if padding is None else int(padding)
    affine, places, depth = _grid(path, found)
    array = np.full((depth, *frames.shape[1:]), background, np.uint16)  # k rows columns
    overlaps: dict[tuple[int, int], int] = {}
    for frame, place, segment in zip(frames, places, _segments(found, kind)):
        if segment is None:
            array[place] = frame
            continue
        inside = frame != 0
        for other in np.unique(array[place][inside & (array[place] != 0)]).tolist():
            pair = (min(other, segment), max(other, segment))
            overlaps[pair] = overlaps.get(pair, 0) + int((array[place][inside] == other).sum())
        array[place][inside] = segment
    if overlaps:
        pairs = ", ".join(
            f"{names.get(a)!r} and {names.get(b)!r} ({n} voxels)" for (a, b), n in overlaps.items()
        )
        raise ValuesError(
            f"{path}: segments overlap: {pairs}; one label map cannot hold them. Export them one by one."
        )
    if background:
        array[array == background] = 0
    labels = np.asfortranarray(array.transpose(2, 1, 0))  # column row k: x y z of the affine
    return Stored(labels, affine, {i: name for i, name in names.items() if i != background})


def names(path: pathlib.Path) -> dict[int, str]:
    """The names of segments, from the header alone.

    Raises:
        FileError: no DICOM segmentation, damaged, or pydicom is not installed.
    """
    found = _dataset(path, voxels=False)
    background = found.get("PixelPaddingValue")
    return {i: name for i, name in _names(found).items() if i != background}


def _names(found: Any) -> dict[int, str]:
    """Segment number to name, without the background that a label map object may list as segment 0."""
    named = {int(s.SegmentNumber): str(s.get("SegmentLabel", "")) for s in found.SegmentSequence}
    return {i: name for i, name in named.items() if i}


def _dataset(path: pathlib.Path, voxels: bool = True) -> Any:
    """The object, after checking that it is a segmentation."""
    pydicom = library("pydicom", path)
    try:
        found = pydicom.dcmread(path, stop_before_pixels=not voxels)
    except (OSError, EOFError, ValueError, AttributeError, pydicom.errors.InvalidDicomError) as error:
        raise FileError(f"{path}: cannot be read as DICOM: {error}.") from error
    kind = str(found.get("SOPClassUID", ""))
    if kind not in SEG:
        what = pydicom.uid.UID(kind).name or "no SOP class"
        raise FileError(
            f"{path}: a single DICOM object ({what}); give the folder of its series, or a DICOM segmentation."
        )
    return found


def _segments(found: Any, kind: str) -> list[int | None]:
    """Of each frame the segment; None where its pixels are ids."""
    if kind == "LABELMAP":
        return [None] * len(found.PerFrameFunctionalGroupsSequence)
    return [
        int(_group(found, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        for frame in found.PerFrameFunctionalGroupsSequence
    ]


def _group(found: Any, frame: Any, name: str) -> Any:
    """A functional group of a frame, or the one that all frames share."""
    for owner in (frame, found.SharedFunctionalGroupsSequence[0]):
        if name in owner:
            return owner[name][0]
    raise AttributeError(name)


def _grid(path: pathlib.Path, found: Any) -> tuple[np.ndarray, list[int], int]:
    """Affine of the grid, index of each frame's slice, and number of slices."""
    try:
        frames = list(found.PerFrameFunctionalGroupsSequence)
        turns = [_group(found, f, "PlaneOrientationSequence").ImageOrientationPatient for f in frames]
        corners = [_group(found, f, "PlanePositionSequence").ImagePositionPatient for f in frames]
        pixel = _group(found, frames[0], "PixelMeasuresSequence")
        rows, columns = (float(v) for v in pixel.PixelSpacing)
        given = float(pixel.get("SpacingBetweenSlices") or pixel.get("SliceThickness") or 0)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise GeometryError(f"{path}: no geometry for every frame ({error}); export it again.") from error
    turn, corner = np.array(turns, np.float64), np.array(corners, np.float64)
    if np.abs(turn - turn[0]).max() > 1e-4:
        raise GeometryError(f"{path}: frames are turned against each other; export it again.")
    along_row, along_column = turn[0, :3], turn[0, 3:]
    normal = np.cross(along_row, along_column)
    height = corner @ normal
    gaps = np.diff(np.unique(height.round(3)))
    step = _step(gaps, given)
    start = corner[height.argmin()]
    index = (height - height.min()) / step
    places = np.rint(index).astype(int)
    if places.any():  # the headers' distance is often rounded: take it over the whole stack
        step = float(np.ptp(height) / places.max())
    drift = np.linalg.norm(corner - start - (places * step)[:, None] * normal, axis=1).max()
    if drift > max(_IN_PLACE_MM, 0.01 * step):
        raise GeometryError(f"{path}: frames lie up to {drift:.3g} mm off one grid; export it again.")
    matrix = np.eye(4)
    matrix[:3] = np.stack([along_row * columns, along_column * rows, normal * step, start], axis=1)
    return _LPS @ matrix, places.tolist(), int(places.max()) + 1


def _step(gaps: np.ndarray, given: float) -> float:
    """Distance of slices: what the header says where the frames lie on such a grid, else their smallest gap."""
    if not gaps.size:
        return given or 1.0
    if given and np.abs(gaps / given - np.rint(gaps / given)).max() < 0.01 and gaps.min() > 0.5 * given:
        return float(gaps.min() / np.rint(gaps.min() / given))
    return float(gaps.min())
