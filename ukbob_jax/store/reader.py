"""Subjects, volumes and crops out of a store."""

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorstore as ts

from ukbob_jax.errors import ConfigError, FileError, UkbobError, ValuesError
from ukbob_jax.store import rows, samples, schema, values
from ukbob_jax.store.digest import digest
from ukbob_jax.store.row import Subject

OPEN_ARRAYS = 4096  # array handles kept open, about 20 kB each
PARSED_ROWS = 64  # rows kept parsed: each is asked for several times in a row


class Rows(Mapping[str, Subject]):
    """The subjects of a manifest by name, in order; kept as text and parsed on access, to hold 50,000 of them. Read only."""

    def __init__(self, lines: dict[str, bytes]) -> None:
        self._lines = lines
        self._parsed = functools.lru_cache(maxsize=PARSED_ROWS)(self._parse)

    def __getitem__(self, subject: str) -> Subject:
        return self._parsed(subject)

    def _parse(self, subject: str) -> Subject:
        if subject not in self._lines:
            raise ConfigError(
                f"no subject {subject!r} in the store; it has {len(self)}, such as {next(iter(self))!r}."
            )
        where = f"manifest row of {subject}"
        return Subject.from_json(rows.decode_line(self._lines[subject], where), where)

    def __contains__(self, subject: object) -> bool:
        return subject in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


class Store:
    """A store opened for reading; made by `Store.open`. Safe to share between threads and to send to processes."""

    def __init__(
        self, path: str, found: Rows, splits: dict[str, tuple[str, ...]], cache_bytes: int = 0
    ) -> None:
        self.path = path
        self.cache_bytes = cache_bytes
        self.rows = found
        self.subjects = tuple(found)
        self._splits = splits
        self._root = schema.open_root(path)
        self._context = ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})
        self._array = functools.lru_cache(maxsize=OPEN_ARRAYS)(self._open_array)

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Store":
        """Open the store at `path`.

        Raises:
            FileError: nothing is there, it is not a store, it is empty, or a row is damaged.
        """
        path = os.fspath(path)
        root = _open_root(path)
        with _reading(path, "Correct --config.store."):
            lines = _manifest(root)
        if not lines:
            raise FileError(f"{path}: the store is empty. Run the ingest job and look at its failures.jsonl.")
        by_subject, splits = {}, {}
        for line in lines:
            row = rows.decode_line(line, f"{path}/manifest.jsonl")
            by_subject[row["id"]] = line
            splits.setdefault(row["split"], []).append(row["id"])
        return cls(path, Rows(by_subject), {name: tuple(found) for name, found in splits.items()})

    def __reduce__(self) -> tuple:
        return _reopen, (self.path, self.cache_bytes)

    def caching(self, cache_bytes: int) -> "Store":
        """Return the same store with its own memory for decoded chunks: those met last, up to so many bytes.

        What a store holds of a subject never changes in place, so a chunk that is kept is not looked up again.
        """
        return Store(self.path, self.rows, self._splits, cache_bytes)

    def split(self, name: str) -> tuple[str, ...]:
        """Return the subjects of one split, in the manifest's order.

        Raises:
            ConfigError: the store has no such split.
        """
        if name not in self._splits:
            raise ConfigError(
                f"{self.path}: no split {name!r}; it has {', '.join(map(repr, sorted(self._splits)))}."
            )
        return self._splits[name]

    def read(self, subject: str, name: str) -> np.ndarray:
        """Read a whole array.

        Args:
            name: "image" (`x y z c`, int16, or float32 where the row says so) or "label/SET" (`x y z`, uint8).
        Raises:
            ConfigError: no such subject or label set.
            FileError: the array is damaged or missing; the message names the subject.
        """
        with _reading(self._where(subject, name), self._remedy(subject)):
            array = self._array(subject, name)
            return self._decoded(subject, name, array.read().result())

    def crop(
        self, subject: str, name: str, start: tuple[int, int, int], size: tuple[int, int, int]
    ) -> np.ndarray:
        """Read the voxels from `start` (inclusive), `size` of them per axis; only their chunks are read.

        Raises:
            ValuesError: the crop leaves the volume.
            ConfigError, FileError: as for `read`.
        """
        with _reading(self._where(subject, name), self._remedy(subject)):
            array = self._array(subject, name)
            check_crop(self._where(subject, name), start, size, array.shape[:3])
            window = tuple(slice(int(low), int(low) + int(n)) for low, n in zip(start, size))
            return self._decoded(subject, name, array[window].read().result())

    def fetch(
        self, subject: str, name: str, start: Sequence[int], out: np.ndarray, channels: Sequence[int] = ()
    ) -> Callable[[], None]:
        """Begin to read a crop, as stored, into `out`; the function returned waits until it is there.

        For many crops at a time: the reads go on side by side, and no crop is copied once more into its batch.

        Args:
            start: voxels, x y z.
            out: `x y z c` for "image", int16, or float32, which holds any row's voxels; `x y z` uint8 for a label set;
                any strides. Its shape is the crop's.
            channels: of an image, the ones to read, in order; empty: all.
        Raises:
            ConfigError, FileError, ValuesError: as for `crop`, at the call or while waiting.
        """
        where, remedy = self._where(subject, name), self._remedy(subject)
        with _reading(where, remedy):
            array = self._array(subject, name)
            check_crop(where, start, out.shape[:3], array.shape[:3])
            window = tuple(slice(int(low), int(low) + n) for low, n in zip(start, out.shape))
            source = array[(*window, list(channels))] if channels else array[window]
            reading = ts.array(out).write(source.translate_to[0])

        def wait() -> None:
            with _reading(where, remedy):
                reading.result()

        return wait

    def samples(self, subject: str, name: str) -> dict[int, np.ndarray]:
        """Read the voxels drawn at ingest, by class: `n 3` int32, up to `schema.SAMPLES`; `name` is of the label set."""
        present = self.present(subject, name)
        if not present:
            return {}
        with _reading(self._where(subject, f"samples/{name}"), self._remedy(subject)):
            voxels = self._array(subject, f"samples/{name}").read().result()
        return {organ: samples.valid(voxels[row]) for row, organ in enumerate(present)}

    def sample(self, subject: str, name: str, organ: int) -> np.ndarray:
        """Read the samples of one class that is present: one chunk."""
        row = self.present(subject, name).index(organ)
        with _reading(self._where(subject, f"samples/{name}"), self._remedy(subject)):
            return samples.valid(self._array(subject, f"samples/{name}")[row].read().result())

    def present(self, subject: str, name: str) -> Sequence[int]:
        """Return the ids of the classes in label set `name`, ascending, without background and ignore.

        Raises:
            ConfigError: no such subject or label set.
        """
        row = self.rows[subject]
        if name not in row.present:
            raise ConfigError(f"{subject}: no label set {name!r}; it has {', '.join(row.labels) or 'none'}.")
        return row.present[name]

    def label_names(self, label: str, subjects: Iterable[str] | None = None) -> dict[int, str]:
        """Return id -> name in a label set as the data set's description says; empty where it says nothing.

        Args:
            label: name of the label set.
            subjects: whose rows count; None: all.
        Raises:
            ConfigError: an id has different names in two subjects.
        """
        found: dict[int, tuple[str, str]] = {}  # id -> name, and the first subject that says so
        for subject in self.subjects if subjects is None else subjects:
            for i, name in self.rows[subject].label_names.get(label, {}).items():
                first_name, first = found.setdefault(i, (name, subject))
                same = name.strip().lower() == first_name.strip().lower()
                if not same and i:  # programs name the background in many ways
                    raise ConfigError(
                        f"config.label: id {i} of {label!r} is {first_name!r} in {first} and {name!r} in {subject}. "
                        "Ingest them to stores of their own, or with a label table that gives each structure one id."
                    )
        return {i: name for i, (name, _) in found.items()}

    def identity(self, subject: str, *arrays: str) -> dict[str, Any]:
        """Return what changes when one of a subject's `arrays` does; see `Subject.identity`.

        For results that are kept: a label set written anew counts as another even where names and sources agree.

        Raises:
            FileError: the subject's `done.json` is missing or damaged.
        """
        row = rows.read_done(self._root, subject)
        if row is None:
            raise FileError(f"{self.path}: subject {subject}, done.json: missing. {self._remedy(subject)}")
        return row.identity(*arrays)

    def verify(self, subject: str) -> None:
        """Compare every file of `subject` with the digests written beside it.

        Raises:
            FileError: naming the first file that differs.
        """
        if found := damage(self._root, subject):
            raise FileError(f"{self.path}: subject {subject}, {found}. {self._remedy(subject)}")

    def _open_array(self, subject: str, name: str) -> ts.TensorStore:
        row = self.rows[subject]
        if name not in row.folders:
            known = ", ".join(row.folders)
            raise ConfigError(f"{self._where(subject, name)}: no such array; there are {known}.")
        shape = row.shape
        if name == "image":
            shape = (*shape, len(row.channels))
        elif name.startswith("samples/"):
            shape = (len(row.present[name.removeprefix("samples/")]), schema.SAMPLES, 3)
        folder = self._root / (schema.subject_folder(subject) + row.folders[name])
        spec = schema.array_spec(folder, name, shape, row.dtype)
        return ts.open(spec, open=True, context=self._context, recheck_cached_data=False).result()

    def _decoded(self, subject: str, name: str, stored: np.ndarray) -> np.ndarray:
        if name != "image":
            return stored
        row = self.rows[subject]
        return values.decode(stored, row.slope, row.intercept)

    def _where(self, subject: str, name: str) -> str:
        return f"{self.path}: subject {subject}, {name}"

    def _remedy(self, subject: str) -> str:
        return f"Drop it (--config.job=verify --config.repair=True) and run the ingest job again to make {subject} anew."


def _reopen(path: str, cache_bytes: int) -> Store:
    """Open a store in another process."""
    return Store.open(path).caching(cache_bytes)


def verify(path: str | os.PathLike) -> dict[str, str]:
    """Find what is wrong with each damaged subject of the store at `path`; empty: every byte is as it was written.

    Raises:
        FileError: nothing is there, or it is not a store.
    """
    return {subject: found for subject, found in check_all(path, list_all(path)) if found}


def list_all(path: str | os.PathLike) -> list[str]:
    """List every subject that the store's manifest or its folders know of, also where those are damaged.

    Raises:
        FileError: nothing is there, or it is not a store.
    """
    root = _open_root(os.fspath(path))
    keys = (key.decode().split("/") for key in root.list(schema.below("subjects/")).result())
    found = {parts[1] for parts in keys if parts[-1] == "done.json" and len(parts) == 3}
    with contextlib.suppress(FileError):  # a damaged manifest is made again from the folders
        lines = root.read("manifest.jsonl").result().value.splitlines()
        found |= {rows.decode_line(line, "manifest")["id"] for line in lines}
    return sorted(found)


def check_all(
    path: str | os.PathLike, subjects: Sequence[str], threads: int = 8
) -> Iterator[tuple[str, str]]:
    """Yield each subject with what is wrong with it, or "", in order; several are read at a time."""
    root = _open_root(os.fspath(path))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        yield from zip(subjects, pool.map(functools.partial(damage, root), subjects))


def damage(root: ts.KvStore, subject: str) -> str:
    """Find what is wrong with a subject: the first file that differs from the digests beside it; "": nothing."""
    try:
        done = rows.read_done(root, subject)
    except FileError:
        return "done.json: is damaged"
    if done is None:
        return "done.json: missing"
    folder = root / schema.subject_folder(subject)
    for name, files in done.digests.items():
        for key, written in files.items():
            found = digest(folder, f"{done.folders[name]}/{key}")
            if found != written:
                return f"{name}: {key} is {'missing' if found is None else 'damaged'}"
    return ""


def check_crop(where: str, start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> None:
    """Refuse a crop that leaves the volume.

    Raises:
        ValuesError: with the three triples.
    """
    fits = (low >= 0 and n > 0 and low + n <= length for low, n, length in zip(start, size, shape))
    if len(start) != len(shape) or len(size) != len(shape) or not all(fits):
        raise ValuesError(
            f"{where}: crop start {tuple(start)} size {tuple(size)} leaves the volume {tuple(shape)}."
        )


def _open_root(path: str) -> ts.KvStore:
    """Open the files of the store at `path`.

    Raises:
        FileError: nothing is there, or it is not a store of this format.
    """
    with _reading(path, "Correct --config.store."):
        root = schema.open_root(path)
        marker = root.read("store.json").result()
        if marker.state == "missing":
            what = "not a store (no store.json)" if root.list().result() else "no such store"
            raise FileError(f"{path}: {what}. Make one with --config.job=ingest, or correct --config.store.")
        rows.check_format(marker.value, path)
    return root


def _manifest(root: ts.KvStore) -> list[bytes]:
    """Read the manifest's lines, or make the same lines from the `done.json` files while there is no manifest."""
    found = root.read("manifest.jsonl").result()
    if found.state == "missing":
        return [rows.encode_line(rows.without_digests(row)) for row in rows.read_rows(root)]
    return found.value.splitlines()


@contextlib.contextmanager
def _reading(where: str, remedy: str) -> Iterator[None]:
    """Turn TensorStore's errors into one line with the subject and what to do."""
    try:
        yield
    except UkbobError:
        raise
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).split(" [")[0].split(" Error ")[0]
        raise FileError(f"{where}: damaged or missing ({reason}). {remedy}") from error
