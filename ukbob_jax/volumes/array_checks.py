"""Checks of arrays that callers of the Python API hand over, as files are checked when they are read."""

import sys
from typing import Any

import numpy as np

from ukbob_jax.errors import ValuesError
from ukbob_jax.volumes import voxels


def label_array(name: str, array: Any) -> Any:
    """A label map that a caller hands over, with no id changed in silence: the check of every public function.

    Integers and bool pass as they are, and so do arrays inside jit, whose values nobody knows.

    Args:
        name: what the array is, for messages.
        array: any shape, numpy or jax.
    Returns:
        The array; floats within 1e-3 of whole numbers as int32, with a warning where they had to be rounded.
    Raises:
        ValuesError: NaN, fractions, or no numbers.
    """
    if _is_traced(array):
        return array
    kind = np.asarray(array).dtype.kind if not hasattr(array, "dtype") else np.dtype(array.dtype).kind
    if kind in "iub":
        return array
    values = np.asarray(array)
    if kind == "V":  # bfloat16 and its like
        values = values.astype(np.float32)
    if values.dtype.kind != "f":
        raise ValuesError(f"{name}: {values.dtype} voxels are no label ids; expected integers.")
    ids = voxels.whole(name, values).astype(np.int32) if values.size else values.astype(np.int32)
    return _jax().numpy.asarray(ids) if _is_jax(array) else ids


def check_finite(name: str, array: Any) -> None:
    """Refuse an image array with NaN or infinite voxels; arrays inside jit and integers pass.

    Raises:
        ValuesError: with how many there are.
    """
    if _is_traced(array) or np.dtype(array.dtype).kind in "iub":
        return
    finite = _jax().numpy.isfinite(array) if _is_jax(array) else np.isfinite(array)
    if not finite.all():
        raise ValuesError(
            f"{name}: {array.size - int(finite.sum())} of {array.size} voxels are NaN or infinite. "
            "Replace them first."
        )


def _jax() -> Any:
    """JAX where it is loaded: the processes that ingest do without it, and have no array of it."""
    return sys.modules.get("jax")


def _is_jax(array: Any) -> bool:
    return _jax() is not None and isinstance(array, _jax().Array)


def _is_traced(array: Any) -> bool:
    return _jax() is not None and isinstance(array, _jax().core.Tracer)
