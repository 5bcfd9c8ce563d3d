"""What nnssl's preprocessing leaves of an image: NAME.b2nd (blosc2), its masks NAME__anon and NAME__anat, and NAME.pkl.

Arrays are `1 z y x` with the spatial axes in the order of the plans' `transpose_forward`, cut to a box and then resampled so
that the box's outer faces stay; the .pkl says where the scan lay before. Masks hold 1 inside, 0 outside and -1 beyond
the non-zero region. That file is read without running any code in it.
"""

import functools
import io
import pathlib
import pickle
from types import ModuleType
from typing import Any

import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.volumes.case import Case
from ukbob_jax.volumes.scan import Scan
from ukbob_jax.volumes.volume import Volume

ENDING = ".b2nd"
BELOW = 4  # folders between that of a configuration and a file: collection, dataset, subject, session
NUMPY = {("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode")} | {
    (f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")
}  # what a pickle of numbers may name
LPS = np.diag([-1.0, -1.0, 1.0])


def properties_path(image: pathlib.Path) -> pathlib.Path:
    """Return the file that says where an image lay."""
    return image.with_name(image.name.removesuffix(ENDING) + ".pkl")


def read(case: Case) -> Scan:
    """Read an image and its masks, in RAS; the image float32 as nnssl normalised it.

    Args:
        case: one image and masks by label set, files that end in .b2nd.
    Raises:
        FileError: a file is missing or is not what it should be.
        MismatchError: a mask of another shape than the image.
        ConfigError: blosc2 is not installed.
    """
    [path] = case.images
    array = _array(path)
    affine = _affine(path, array.shape)
    axes = np.argsort(transposed(path))  # of the array, for z y x
    labels = {}
    for name, file in case.labels.items():
        mask = _array(file)
        if mask.shape != array.shape:
            raise MismatchError(
                f"{file}: shape {mask.shape}, but {path.name} has {array.shape}. Preprocess it again."
            )
        labels[name] = Volume((mask > 0).astype(np.uint8).transpose(axes).T, affine).to_ras()
    image = Volume(array.transpose(axes).T[..., None], affine).to_ras()
    return Scan(image, labels, dict.fromkeys(labels))


def transposed(image: pathlib.Path) -> list[int]:
    """Return the plans' `transpose_forward`: which of z y x each spatial axis of an array is.

    Raises:
        FileError: no plans beside the configuration's folder.
    """
    if len(image.parents) <= BELOW + 1:
        raise FileError(f"{image}: expected CONFIGURATION/COLLECTION/DATASET/SUBJECT/SESSION/NAME{ENDING}.")
    return _plans(image.parents[BELOW])


@functools.lru_cache(maxsize=16)
def _plans(configuration: pathlib.Path) -> list[int]:
    """`transpose_forward` of the plans whose name a configuration's folder begins with."""
    for path in sorted(configuration.parent.glob("*.json")):
        if configuration.name.startswith(f"{path.stem}_"):
            found = files.read_json(path)
            axes = found.get("transpose_forward") if isinstance(found, dict) else None
            if not isinstance(axes, list) or sorted(axes) != [0, 1, 2]:
                raise FileError(f"{path}: transpose_forward is {axes!r}; expected an order of 0, 1, 2.")
            return axes
    raise FileError(
        f"{configuration.parent}: no plans file that {configuration.name} is named after, such as nnsslPlans.json. Copy it "
        "there: it says which axis is which."
    )


def _affine(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
    """Voxel `x y z` to RAS+ mm, float64 `4 4`, of an array of `shape` in the order of the plans."""
    said = _properties(properties_path(path))
    try:
        box = np.array(said["bbox_used_for_cropping"], np.float64)  # axis, low and high
        cropped = np.array(said["shape_after_cropping_and_before_resampling"], np.float64)
        spacing, origin, direction = (
            np.array(said["sitk_stuff"][name], np.float64) for name in ("spacing", "origin", "direction")
        )
        axes = np.argsort(transposed(path))
        step = (cropped / shape)[axes][::-1]  # voxels of the scan per voxel of the array, x y z
        first = box[:, 0][axes][::-1] + (step - 1) / 2  # where voxel 0 lies, in voxels of the scan
        to_world = LPS @ direction.reshape(3, 3) @ np.diag(spacing)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{properties_path(path)}: not the properties of a 3-D image of nnssl ({type(error).__name__}: {error}). "
            "Preprocess it again."
        ) from error
    affine = np.eye(4)
    affine[:3, :3] = to_world @ np.diag(step)
    affine[:3, 3] = to_world @ first + LPS @ origin
    return affine


def _array(path: pathlib.Path) -> np.ndarray:
    """The one channel of an array, in the order of the plans.

    Raises:
        FileError: missing, damaged, or not of one channel.
    """
    library = _library()
    if not path.is_file():
        raise FileError(f"{path}: no such file. Fetch it, or preprocess it again.")
    try:
        array = np.asarray(library.open(urlpath=str(path), mode="r")[:])
    except Exception as error:  # blosc2 raises RuntimeError, ValueError and others on what is no array
        raise FileError(f"{path}: not readable as a blosc2 array ({error}). Copy it again.") from error
    if array.ndim != 4 or array.shape[0] != 1:
        raise FileError(f"{path}: shape {array.shape}; expected one channel of a 3-D image.")
    return array[0]


def _library() -> ModuleType:
    try:
        import blosc2  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "Reading nnssl's .b2nd files needs blosc2, which is not installed: pip install 'ukbob-jax[blosc2]'."
        ) from error
    return blosc2


class _Numbers(pickle.Unpickler):
    """A pickle of containers and numbers; whatever else it names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NUMPY:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def _properties(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = _Numbers(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}. Preprocess the image again.") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise FileError(f"{path}: not the properties of an image ({error}). Preprocess it again.") from error
    if not isinstance(found, dict):
        raise FileError(f"{path}: {type(found).__name__}; expected a dict. Preprocess the image again.")
    return found
