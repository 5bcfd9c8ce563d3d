"""Weight files: a mapping of names to arrays, and a description of what they are the weights of.

`.pt` and `.pth` as PyTorch writes them (`torch_files.py`), and `.safetensors`. Both carry our description, a JSON text
under the name `ukbob_jax`, with a digest of the tensors: neither format would notice a flipped bit on its own.
"""

import hashlib
import json
import os
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from ukbob_jax import files
from ukbob_jax.errors import ConfigError, FileError
from ukbob_jax.weights import torch_files

DESCRIPTION = "ukbob_jax"
TORCH_SUFFIXES = (".pt", ".pth")
SAFETENSORS_SUFFIX = ".safetensors"
# Where trainers put the weights in a dictionary of other things.
WRAPPERS = ("state_dict", "model", "model_state_dict", "network_weights", "net", "network", "module")
_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "BOOL": np.bool_},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8},
}


class WeightFile(NamedTuple):
    """What a weight file holds."""

    tensors: dict[str, np.ndarray]  # by the file's own names; read-only
    description: dict[str, Any] | None  # ours, where the file has one


def read(path: str | os.PathLike, first: str = "") -> WeightFile:
    """Read a `.pt`, `.pth` or `.safetensors` file; no code in it is run.

    Args:
        path: of the file.
        first: pattern that the name of a network's first tensor matches whole, to tell its dictionary from others.
    Raises:
        FileError: missing, damaged, another format, or without tensors.
    """
    path = pathlib.Path(path)
    if path.suffix == SAFETENSORS_SUFFIX:
        return _checked(path, *_read_safetensors(path))
    if path.suffix in TORCH_SUFFIXES:
        return _checked(path, *_read_torch(path, first))
    if not path.exists():
        raise FileError(f"{path}: no such file or folder.")
    raise FileError(
        f"{path}: weights are read from {', '.join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX))} or a folder."
    )


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Write `tensors` and what they are; the suffix of `path` chooses the format. The same input gives the same bytes.

    Raises:
        ConfigError: the suffix is none of ours.
        FileError: the file cannot be written.
    """
    path = pathlib.Path(path)
    tensors = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    text = json.dumps({**description, "sha256": digest(tensors)}, sort_keys=True)
    if path.suffix == SAFETENSORS_SUFFIX:
        files.write_bytes(path, safetensors.numpy.save(tensors, {DESCRIPTION: text}))
    elif path.suffix in TORCH_SUFFIXES:
        torch_files.save(path, {"state_dict": tensors, DESCRIPTION: text})
    else:
        raise ConfigError(
            f"{path}: weights are written to {', '.join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX))}."
        )


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and numbers, whatever their order."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        total.update(f"{name} {array.dtype.name} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _checked(path: pathlib.Path, tensors: dict[str, np.ndarray], text: Any) -> WeightFile:
    if not tensors:
        raise FileError(f"{path}: holds no tensors.")
    if text is None:
        return WeightFile(tensors, None)
    try:
        description = json.loads(text)
        expected = description["sha256"]
    except (ValueError, TypeError, KeyError):
        raise FileError(
            f"{path}: its description ({DESCRIPTION}) is damaged. Fetch or convert it again."
        ) from None
    if digest(tensors) != expected:
        raise FileError(
            f"{path}: its numbers do not have the digest they were saved with. Fetch or convert it again."
        )
    return WeightFile(tensors, description)


def _read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str | None]:
    try:
        data = path.read_bytes()
        entries = safetensors.deserialize(data)
        (length,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
        tensors = {}
        for name, entry in entries:
            if entry["dtype"] not in _DTYPES:
                raise FileError(
                    f"{path}: {name} has the type {entry['dtype']}; known are {', '.join(_DTYPES)}."
                )
            numbers = memoryview(entry["data"]).toreadonly()
            tensors[name] = np.frombuffer(numbers, _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except FileNotFoundError:
        raise FileError(f"{path}: no such file.") from None
    except (safetensors.SafetensorError, OSError, struct.error) as error:
        raise FileError(f"{path}: damaged, or no safetensors file ({error}). Fetch it again.") from None
    return tensors, metadata.get(DESCRIPTION)


def _read_torch(path: pathlib.Path, first: str) -> tuple[dict[str, np.ndarray], Any]:
    file = torch_files.load(path)
    found = _weights(file.value, re.compile(first or ".*", re.DOTALL))
    if found is None:
        keys = (
            ", ".join(str(key) for key in file.value)
            if isinstance(file.value, dict)
            else type(file.value).__name__
        )
        raise FileError(
            f"{path}: no weights found at the top or under {', '.join(WRAPPERS)}; it holds: {keys}."
        )
    tensors = {name: torch_files.numbers(file, value, f"{path}: {name}") for name, value in found.items()}
    return tensors, file.value.get(DESCRIPTION)


def _weights(value: Any, first: re.Pattern[str]) -> dict[str, torch_files.TorchTensor] | None:
    """The tensors of the dictionary `value` itself, or of the first in it of a known name, or of the one network in it."""
    if not isinstance(value, dict):
        return None
    tensors = {
        k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, torch_files.TorchTensor)
    }
    if tensors:
        return tensors
    if found := next((found for key in WRAPPERS if (found := _weights(value.get(key), first))), None):
        return found
    others = [
        item for item in value.values() if isinstance(item, dict) and any(_is_first(k, first) for k in item)
    ]
    return _weights(others[0], first) if len(others) == 1 else None


def _is_first(name: Any, first: re.Pattern[str]) -> bool:
    return isinstance(name, str) and first.fullmatch(name) is not None
