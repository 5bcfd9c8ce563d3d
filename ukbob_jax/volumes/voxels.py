"""Are these voxels an image, or a label map? Values are checked at the border, where files become arrays."""

import warnings

import numpy as np

from ukbob_jax import advice
from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ValuesError

SHOWN = 8  # offending values named in a message
NEAR = 1e-3  # a label this close to a whole number is that number: scaled headers and resamplers round


def image(name: str, array: np.ndarray, nan: str) -> np.ndarray:
    """Integers as they are, floats as float32, all finite.

    Args:
        name: the file, for messages.
        array: any real dtype.
        nan: "refuse" non-finite voxels, or set them to "zero" with a warning.
    Raises:
        ValuesError: non-finite voxels, with their count and the first index.
    """
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    finite = np.isfinite(array)
    if finite.all():
        return array
    count, first = array.size - int(finite.sum()), tuple(np.argwhere(~finite)[0].tolist())
    if nan == "refuse":
        raise ValuesError(
            f"{name}: {count} of {array.size} voxels are NaN or infinite, the first at {first}. "
            f"Repair the file{advice.fix(', or set them to 0 with {}', 'nan', 'zero')}."
        )
    warnings.warn(f"{name}: {count} NaN or infinite voxels set to zero.", stacklevel=3)
    return np.where(finite, array, np.float32(0))


def label(name: str, array: np.ndarray, num_classes: int | None) -> np.ndarray:
    """Whole ids as uint8 (uint16 where `num_classes` is None and an id is above 255).

    Args:
        name: the file, for messages.
        array: any real dtype; floats within 1e-3 of whole numbers are rounded, with a warning.
        num_classes: ids are 0 to num_classes - 1, or 255 to ignore; None takes any up to 65535.
    Raises:
        ValuesError: NaN, fractional, negative or unknown ids, each with its number of voxels.
    """
    if array.dtype.kind == "f":
        array = whole(name, array)
    if array.dtype.kind != "u":
        _refuse(name, array, array < 0, "are negative")
    highest = 65535 if num_classes is None else num_classes - 1
    if array.max() > highest:
        unknown = (array > highest) & (array != IGNORE) if highest < IGNORE else array > highest
        _refuse(name, array, unknown, f"are not among the classes 0 to {highest} (or 255 to ignore)")
    return array.astype(np.uint8 if array.max() <= 255 else np.uint16, copy=False)


def whole(name: str, array: np.ndarray) -> np.ndarray:
    """The nearest whole numbers of a float array, with a warning that says how far they were."""
    if not np.isfinite(array).all():
        raise ValuesError(f"{name}: {int((~np.isfinite(array)).sum())} label voxels are NaN or infinite.")
    nearest = np.rint(array)
    distance = np.abs(array - nearest)
    _refuse(name, array, distance > NEAR, "are not whole numbers")
    if largest := float(distance.max()):
        warnings.warn(
            f"{name}: labels are up to {largest:.2g} away from whole numbers; they were rounded.",
            stacklevel=4,
        )
    return nearest


def _refuse(name: str, array: np.ndarray, wrong: np.ndarray, why: str) -> None:
    """Raise when any voxel is `wrong`, naming the ids and how many voxels each has."""
    if not wrong.any():
        return
    ids, counts = np.unique(array[wrong], return_counts=True)
    shown = ", ".join(
        f"{str(i).removesuffix('.0')} ({n} voxel{'s' * (n > 1)})"
        for i, n in list(zip(ids, counts.tolist()))[:SHOWN]
    )
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    raise ValuesError(f"{name}: label values {shown}{more} {why}. Map or repair them first.")
