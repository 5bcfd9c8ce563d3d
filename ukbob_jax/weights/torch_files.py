"""PyTorch's `.pt` and `.pth` files, read and written without PyTorch.

Both formats `torch.save` has had: the zip archive since 1.6 and the chain of pickles before. Reading runs no code
(`pickles.py`), and a tensor's bytes are read only when asked for.
"""

import collections
import io
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.weights import beginnings, pickles
from ukbob_jax.weights.pickles import Named

STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# What a damaged archive or pickle can make the readers below raise.
_DAMAGE = (
    *(
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        EOFError,
        AssertionError,
        AttributeError,
        MemoryError,
    ),
    *(RuntimeError, OSError, struct.error, zipfile.BadZipFile, zlib.error),
)


class Storage(NamedTuple):
    """A run of numbers in the file, which several tensors may share."""

    key: str
    dtype: np.dtype
    length: int  # numbers


class TorchTensor(NamedTuple):
    """A tensor that has not been read yet."""

    storage: Storage
    offset: int  # numbers, in the storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # numbers


class Inert(NamedTuple):
    """Stands for an object of a trainer's checkpoint that no weights are in."""

    name: str


class TorchFile(NamedTuple):
    """What a file holds: `value` with a `TorchTensor` in place of each tensor, and `read` to get one's numbers."""

    value: Any
    read: Callable[[TorchTensor], np.ndarray]


def load(path: pathlib.Path) -> TorchFile:
    """The contents of a file written by `torch.save`.

    Raises:
        FileError: it is damaged, no PyTorch file, or holds objects other than tensors and plain containers, which are
            named and never run.
    """
    try:
        return _load_zip(path) if zipfile.is_zipfile(path) else _load_legacy(path.read_bytes())
    except pickles.Refused as refused:
        raise FileError(
            f"{path}: holds {refused}, which is not read: only tensors and plain containers are, and no code is run. "
            "Save model.state_dict() with PyTorch."
        ) from None
    except FileNotFoundError:
        raise FileError(f"{path}: no such file.") from None
    except _DAMAGE as error:
        raise FileError(
            f"{path}: damaged, or no PyTorch checkpoint ({beginnings.looks_like(path) or error}). Fetch or save it again."
        ) from None


def numbers(file: TorchFile, tensor: TorchTensor, where: str) -> np.ndarray:
    """The array of `tensor`, a read-only view where it can be.

    Raises:
        FileError: its bytes are damaged or do not suffice; the message starts with `where`.
    """
    try:
        return file.read(tensor)
    except _DAMAGE as error:
        raise FileError(f"{where}: damaged ({error}). Fetch or save the file again.") from None


def _storage(pid: Any) -> Storage:
    kind, dtype, key, _, length, *view = pid
    if kind != "storage" or not isinstance(dtype, Named) or dtype.name not in STORAGES or any(view):
        raise ValueError("unknown kind of storage")
    if not isinstance(key, str) or not isinstance(length, int) or length < 0:
        raise ValueError("storage without a key or length")
    return Storage(key, np.dtype(STORAGES[dtype.name]), length)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TorchTensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError("tensor without storage")
    whole = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(isinstance(n, int) and 0 <= n < 2**48 for n in whole):
        raise ValueError("tensor with an impossible shape")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if count and (last >= storage.length or count > storage.length):
        raise ValueError("tensor outside its storage")
    return TorchTensor(storage, offset, shape, strides)


def _first(value: Any, *_: Any) -> Any:
    return value


def _ordered(*items: Any) -> collections.OrderedDict:
    if items and not all(isinstance(k, str) for pairs in items for k, _ in pairs):
        raise TypeError("dictionary with keys that are no text")
    return collections.OrderedDict(*items)


def _names() -> dict[pickles.Key, Named]:
    calls = {
        ("collections", "OrderedDict"): _ordered,
        ("collections", "defaultdict"): lambda *_: {},  # its items follow
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch", "Size"): lambda *a: (
            tuple(*a) if all(isinstance(x, tuple | list) for x in a) else Inert("Size")
        ),
    }
    # Left by trainers beside the weights: names of devices and dtypes, parsed arguments, paths, dates, numpy scalars.
    inert = [
        ("argparse", "Namespace"),
        ("torch", "device"),
        ("_codecs", "encode"),
        ("collections", "Counter"),
        ("numpy", "dtype"),
    ]
    types = ("dict", "list", "set", "tuple", "int", "float", "complex", "bool", "str")
    inert += [(module, name) for module in ("builtins", "__builtin__") for name in types]
    paths = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    inert += [(module, name) for module in ("pathlib", "pathlib._local") for name in paths]
    inert += [("datetime", name) for name in ("date", "datetime", "timedelta")]
    inert += [
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ]
    inert += [("numpy", "ndarray")]
    inert += [
        ("torch", name) for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")
    ]
    table = {key: Named(key[1], call) for key, call in calls.items()}
    table |= {("torch", name): Named(name, _no_call) for name in STORAGES}
    return table | {key: Named(key[1], _inert(".".join(key))) for key in inert}


def _inert(name: str) -> Callable[..., Inert]:
    return lambda *_: Inert(name)


def _no_call(*_: Any) -> None:
    raise TypeError("pickle calls a storage type")


NAMES = _names()


def _array(tensor: TorchTensor, data: bytes | memoryview) -> np.ndarray:
    storage = tensor.storage
    flat = np.frombuffer(data, storage.dtype, count=storage.length)
    strides = [stride * storage.dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)


def _load_zip(path: pathlib.Path) -> TorchFile:
    """An archive, of which only the records that are asked for are read: half of a trainer's file is its optimiser."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("data.pkl")]
        if len(roots) != 1 or any("/code/" in name for name in names):
            raise ValueError("TorchScript, or a zip file of another kind")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("compressed records, which PyTorch never writes")
        root = roots[0]
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("big-endian numbers")
        value = pickles.load(io.BytesIO(archive.read(f"{root}data.pkl")), NAMES, _storage)

    def read(tensor: TorchTensor) -> np.ndarray:
        with zipfile.ZipFile(path) as archive:  # not kept open: a file on disk may be replaced or removed
            return _array(tensor, archive.read(f"{root}data/{tensor.storage.key}"))

    return TorchFile(value, read)


def _load_legacy(data: bytes) -> TorchFile:
    file = io.BytesIO(data)
    magic, version, system = (pickles.load(file, {}, _storage) for _ in range(3))
    if (
        magic != _LEGACY_MAGIC
        or version != 1001
        or not (isinstance(system, dict) and system.get("little_endian"))
    ):
        raise ValueError("not the format of torch.save")
    storages: dict[str, Storage] = {}

    def remember(pid: Any) -> Storage:
        storage = _storage(pid)
        return storages.setdefault(storage.key, storage)

    value = pickles.load(file, NAMES, remember)
    keys = pickles.load(file, {}, _storage)
    places = _legacy_places(file, keys, storages, len(data))
    view = memoryview(data)
    return TorchFile(value, lambda tensor: _array(tensor, view[slice(*places[tensor.storage.key])]))


def _legacy_places(
    file: IO[bytes], keys: list[str], storages: Mapping[str, Storage], end: int
) -> dict[str, tuple[int, int]]:
    """Where each storage's numbers start and end: behind the pickles, in the order of `keys`, each after its length."""
    places = {}
    for key in keys:
        (length,) = struct.unpack("<q", file.read(8))
        start = file.tell()
        stop = start + length * storages[key].dtype.itemsize
        if length != storages[key].length or stop > end:
            raise ValueError("file ends inside a storage")
        places[key] = (start, stop)
        file.seek(stop)
    return places


def save(path: pathlib.Path, contents: Mapping[str, Any]) -> None:
    """Write `contents` as `torch.save` would; `torch.load(weights_only=True)` reads it. The same input, the same bytes.

    Args:
        path: of the file.
        contents: text, numbers, None, tensors (numpy arrays), and dictionaries, lists and tuples of such. An array that
            occurs several times is written once, and its tensors share it, as those of `state_dict()` do.
    Raises:
        ValueError: something else is in it, or an array of a type that PyTorch does not have.
        FileError: the file cannot be written.
    """
    writer = _Writer()
    pickled = b"\x80\x02" + writer.value(contents) + b"."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _record(archive, "data.pkl", pickled)
        _record(archive, "byteorder", b"little")
        for key, array in enumerate(writer.storages):
            _record(archive, f"data/{key}", np.ascontiguousarray(array).tobytes())
        _record(archive, "version", b"3\n")
    files.write_bytes(path, buffer.getvalue())


def _record(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(
        zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0)), data
    )  # a fixed date: same bytes again


class _Writer:
    """Protocol 2, opcode by opcode: the pickler of the standard library cannot name classes that are not installed.

    Attributes:
        storages: the arrays met so far; a tensor's storage is called by its place here.
    """

    def __init__(self) -> None:
        self.storages: list[np.ndarray] = []
        self._keys: dict[int, int] = {}  # id of an array -> its place

    def value(self, value: Any) -> bytes:
        """Return the opcodes that put `value` on the stack."""
        if isinstance(value, np.generic):
            return self.value(value.item())
        for kind, write in self._writers():
            if isinstance(value, kind):
                return write(value)
        raise ValueError(f"{type(value).__name__} is not written to PyTorch files: {value!r}")

    def _writers(self) -> tuple[tuple[type, Callable[[Any], bytes]], ...]:
        """Kinds of values, the first that fits, and what writes them."""
        return (
            (type(None), lambda _: b"N"),
            (bool, lambda v: b"\x88" if v else b"\x89"),
            (int, self.integer),
            (float, lambda v: b"G" + struct.pack(">d", v)),
            (str, self.text),
            (np.ndarray, self.tensor),
            (tuple, lambda v: b"(" + self._all(v) + b"t"),
            (list, lambda v: b"](" + self._all(v) + b"e"),
            (Mapping, lambda v: b"}(" + self._all(part for item in v.items() for part in item) + b"u"),
        )

    def _all(self, values: Iterable[Any]) -> bytes:
        return b"".join(map(self.value, values))

    def text(self, value: str) -> bytes:
        data = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(data)) + data

    def integer(self, value: int) -> bytes:
        data = value.to_bytes(max(8, value.bit_length() // 8 + 1), "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data

    def tensor(self, array: np.ndarray) -> bytes:
        kind = next((name for name, dtype in STORAGES.items() if np.dtype(dtype) == array.dtype), None)
        if kind is None:
            raise ValueError(
                f"{array.dtype} is no type of PyTorch's tensors; there are {', '.join(STORAGES)}"
            )
        key = self._keys.setdefault(id(array), len(self.storages))
        if key == len(self.storages):
            self.storages.append(array)
        steps = tuple(int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) for axis in range(array.ndim))
        storage = b"(" + self.text("storage") + f"ctorch\n{kind}\n".encode() + self.text(str(key))
        storage += self.text("cpu") + self.integer(array.size) + b"tQ"
        layout = self.integer(0) + self.value(array.shape) + self.value(steps)
        hooks = b"\x89ccollections\nOrderedDict\n)R"  # no gradient, no hooks
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + layout + hooks + b"tR"
