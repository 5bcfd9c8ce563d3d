"""NRRD and MetaImage through SimpleITK, with the segment table of 3D Slicer's `.seg.nrrd`."""

import os
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax.errors import FileError, GeometryError, ValuesError
from ukbob_jax.volumes.formats import Stored, itk_headers, library
from ukbob_jax.volumes.label_colours import colour

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world to RAS+, and back


def read(path: pathlib.Path) -> Stored:
    """The voxels, geometry and names of segments.

    Raises:
        FileError: damaged, cut short, or SimpleITK is not installed.
        GeometryError: not a volume, or lengths that are not in mm.
        ValuesError: complex voxels, or segments in several layers, which overlap.
    """
    itk_headers.check_voxels(path)
    image = _load(path)
    if image.GetDimension() != 3:
        raise GeometryError(f"{path}: a {image.GetDimension()}-D image; expected 3-D, or 3-D with channels.")
    affine, segments = _affine(image), _segments(path, image)
    view = library("SimpleITK", path).GetArrayViewFromImage(image)  # z y x, or z y x c
    if view.dtype.kind == "c":
        raise ValuesError(f"{path}: complex voxels; save the magnitude instead.")
    _check_layers(path, image.GetNumberOfComponentsPerPixel(), segments)
    array = np.array(view.transpose(2, 1, 0, *range(3, view.ndim)), order="F")
    names = {value: name for name, value, _ in segments}
    return Stored(array, affine, names, itk_headers.is_oriented(path))


def names(path: pathlib.Path) -> dict[int, str]:
    """The names of segments, from the header alone.

    Raises:
        FileError: damaged, or SimpleITK is not installed.
    """
    return {value: name for name, value, _ in _segments(path, _load(path, voxels=False))}


def layers(path: str | os.PathLike) -> list[Stored]:
    """The layers of a `.seg.nrrd` whose segments overlap, one label map each, with the names of its segments.

    Raises:
        FileError: damaged, cut short, or SimpleITK is not installed.
    """
    path = pathlib.Path(path)
    image = _load(path)
    view = library("SimpleITK", path).GetArrayViewFromImage(image)
    array = np.array(view.transpose(2, 1, 0, *range(3, view.ndim)), order="F")
    array = array if array.ndim == 4 else array[..., None]
    affine, segments = _affine(image), _segments(path, image)
    return [
        Stored(array[..., n], affine, {value: name for name, value, layer in segments if layer == n})
        for n in range(array.shape[3])
    ]


def write(path: pathlib.Path, array: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> None:
    """Write in one step, compressed; a `.seg.nrrd` gets a segment for each name.

    Raises:
        FileError: SimpleITK is not installed, or the file cannot be written; detached headers are not written.
    """
    if path.suffix.lower() in (".nhdr", ".mhd"):
        raise FileError(f"{path}: headers with a file beside them are read only; write .nrrd or .mha.")
    sitk = library("SimpleITK", path)
    view = np.ascontiguousarray(array.transpose(2, 1, 0, *range(3, array.ndim)))
    image = sitk.GetImageFromArray(view, isVector=array.ndim == 4)
    matrix = _LPS @ affine
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    if path.name.lower().endswith(".seg.nrrd"):
        _name_segments(image, array, names)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing") as folder:
        part = os.path.join(folder, path.name)
        try:
            sitk.WriteImage(image, part, True)
            os.replace(part, path)
        except (OSError, RuntimeError) as error:
            raise FileError(f"{path}: cannot be written: {_reason(error)}.") from error


def _load(path: pathlib.Path, voxels: bool = True) -> Any:
    """The image, or without voxels a reader that holds its header."""
    sitk = library("SimpleITK", path)
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK would print; what matters is raised
    try:
        if voxels:
            return sitk.ReadImage(os.fspath(path))
        reader = sitk.ImageFileReader()
        reader.SetFileName(os.fspath(path))
        reader.ReadImageInformation()
        return reader
    except RuntimeError as error:
        raise FileError(f"{path}: cannot be read: {_reason(error)}.") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _reason(error: Exception) -> str:
    """The last line of ITK's message, which says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^.*?\(0x[0-9a-f]+\): ", "", lines[-1]).rstrip(".") if lines else type(error).__name__


def _affine(image: Any) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return _LPS @ matrix


def _segments(path: pathlib.Path, image: Any) -> list[tuple[str, int, int]]:
    """Name, label value and layer of each segment that the header names.

    Raises:
        FileError: a value or layer that is no whole number; some programs write 2.0 for 2.
    """
    keys, found = set(image.GetMetaDataKeys()), []
    for n in range(len(keys)):
        if f"Segment{n}_LabelValue" not in keys:
            continue
        name, value, layer = (
            image.GetMetaData(key) if (key := f"Segment{n}_{field}") in keys else "0"
            for field in ("Name", "LabelValue", "Layer")
        )
        if not all(re.fullmatch(r"\s*\d+(\.0*)?\s*", text) for text in (value, layer)):
            raise FileError(
                f"{path}: Segment{n} has the LabelValue {value!r} and the Layer {layer!r}; expected whole numbers."
            )
        found.append((name, int(float(value)), int(float(layer))))
    return found


def _check_layers(path: pathlib.Path, components: int, segments: list[tuple[str, int, int]]) -> None:
    if components > 1 and segments:
        parts = [
            f"layer {n}: {', '.join(name for name, _, layer in segments if layer == n)}"
            for n in range(components)
        ]
        raise ValuesError(
            f"{path}: segments overlap, in {components} layers ({'; '.join(parts)}), and one label map cannot hold "
            "them. Save the segments of each layer as a file of its own."
        )


def _name_segments(image: Any, array: np.ndarray, names: Mapping[int, str]) -> None:
    """The header fields by which 3D Slicer knows a segment."""
    present = [int(value) for value in np.unique(array) if value]
    for n, value in enumerate(sorted({*present, *(i for i in names if i)})):
        fields = {
            "ID": f"Segment_{value}",
            "Name": names.get(value, str(value)),
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{part / 255:.6g}" for part in colour(value, names.get(value, ""))),
            "ColorAutoGenerated": "0",
            "LabelValue": str(value),
            "Layer": "0",
            "Extent": " ".join(f"0 {size - 1}" for size in array.shape[:3]),
        }
        for field, text in fields.items():
            image.SetMetaData(f"Segment{n}_{field}", text)
