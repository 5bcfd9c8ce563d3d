"""Scans into a store, one subject at a time; safe to stop anywhere and to resume."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Unpack

import numpy as np
import tensorstore as ts

from ukbob_jax.errors import ConfigError, FileError, UkbobError
from ukbob_jax.store import checks, rows, samples, schema
from ukbob_jax.store.digest import digest
from ukbob_jax.store.prepare import About, prepare
from ukbob_jax.store.row import Subject


class StoreWriter:
    """Writes subjects into the store at `path` and, at the end, its manifest.

    Use it in a `with` block, or call `finish()` after the last subject. Several processes may write at a time as long
    as each subject is written by one of them.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Open or create the store.

        Raises:
            FileError: the folder holds something else, or cannot be written.
        """
        self.path = os.fspath(path)
        self._root = schema.open_root(path)
        with _writing(self.path):
            rows.create_or_open(self._root, self.path)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *failure: object) -> None:
        self.finish()

    def has(self, subject: str, source: str) -> bool:
        """Return whether the store holds `subject` as made from a source with this checksum; a damaged row counts as no."""
        try:
            done = rows.read_done(self._root, subject)
        except FileError:
            return False
        return done is not None and done.source == source

    def write(
        self,
        subject: str,
        image: np.ndarray,
        affine: np.ndarray,
        labels: Mapping[str, np.ndarray],
        *,
        source: str,
        **about: Unpack[About],
    ) -> None:
        """Write one subject, or replace it; until the last rename readers see what was there before.

        Args:
            subject, image, affine, labels: as `prepare`.
            source: checksum of what the subject was made from; `has` compares it.
            **about: what else is known, see `About`.
        Raises:
            GeometryError: rank or affine cannot be used.
            MismatchError: image, labels and contrasts do not belong together.
            ValuesError: a name, attribute or voxel value cannot be stored.
            FileError: the disk is full or cannot be written; nothing of the subject is left.
        """
        row, stored, checked = prepare(subject, image, affine, labels, **about)
        row = dataclasses.replace(row, source=source, version=self._next_version(subject))

        def arrays(row: Subject) -> Subject:
            row = self._write_array(row, "image", stored)
            for name in sorted(checked):
                row = self._add_label(row, name, checked[name], {}, samples.centres(name, checked))
            return row

        self._write_generation(row, arrays)

    def write_label(
        self,
        subject: str,
        name: str,
        label: np.ndarray,
        provenance: Mapping[str, Any] | None = None,
        like: str = "",
    ) -> None:
        """Add label set `name` to a subject, or replace it; image and other label sets stay as they are.

        Args:
            label: `x y z`, integers 0..255, on the image's grid.
            provenance: JSON-able facts about where it came from.
            like: label set whose names and regions its ids have too; empty: they have none.
        Raises:
            FileError: there is no such subject, or the disk cannot be written.
            MismatchError, ValuesError: as for `write`.
            ConfigError: a mask: crop centres of anatomy and anonymisation depend on each other.
        """
        if schema.is_mask(name):
            raise ConfigError(
                f"{self.path}: label {name!r}: masks are written with their subject; ingest it again."
            )
        row = rows.read_done(self._root, subject)
        if row is None:
            raise FileError(
                f"{self.path}: no subject {subject!r} to add label {name!r} to. Run the ingest job first."
            )
        checked = checks.check_label(label, name, row.shape, subject)
        row = dataclasses.replace(row, version=self._next_version(subject))
        if like:
            same = ((field, getattr(row, field)) for field in ("label_names", "regions"))
            row = dataclasses.replace(
                row, **{field: {**of, name: of[like]} for field, of in same if like in of}
            )
        self._write_generation(
            row, lambda row: self._add_label(row, name, checked, dict(provenance or {}), checked)
        )

    def drop(self, subject: str) -> None:
        """Remove a subject, damaged or not; its row goes first, so that no reader meets half of it."""
        folder = schema.subject_folder(subject)
        with _writing(f"{self.path}: subject {subject}"):
            self._root.write("manifest.jsonl", None).result()
            self._root.write(f"{folder}done.json", None).result()
            self._root.delete_range(schema.below(folder)).result()

    def finish(self) -> None:
        """Rebuild `manifest.jsonl` from the subjects' rows, then remove folders no row names any more."""
        with _writing(self.path):
            done = rows.read_rows(self._root)
            lines = b"".join(rows.encode_line(rows.without_digests(row)) + b"\n" for row in done)
            self._root.write("manifest.jsonl", lines).result()
            for row in done:
                if row.version > 1:
                    self._sweep(row)

    def _next_version(self, subject: str) -> int:
        """Return one above the version in place; what lies above that was left by a killed run."""
        try:
            done = rows.read_done(self._root, subject)
        except FileError:  # damaged: above every folder there is
            keys = (self._root / schema.subject_folder(subject)).list().result()
            return 1 + max((int(key[:4]) for key in keys if key[:4].isdigit()), default=0)
        return 1 if done is None else done.version + 1

    def _write_generation(self, row: Subject, write: Callable[[Subject], Subject]) -> None:
        """Write arrays into a fresh folder; the row is renamed into place once all of them are there.

        Args:
            row: before the arrays.
            write: writes them and returns the row that lists them.
        """
        checks.check_json(row)
        folder = schema.subject_folder(row.id)
        fresh = schema.below(f"{folder}{row.version:04d}/")
        with _writing(f"{self.path}: subject {row.id}"):
            self._root.delete_range(fresh).result()  # what a killed run left
            try:
                row = write(row)
            except BaseException:
                self._root.delete_range(fresh).result()
                raise
            self._root.write("manifest.jsonl", None).result()  # a cache that is about to be out of date
            self._root.write(f"{folder}done.json", rows.encode_line(row.to_json()) + b"\n").result()

    def _add_label(
        self, row: Subject, name: str, label: np.ndarray, provenance: dict[str, Any], centres: np.ndarray
    ) -> Subject:
        """Write a label set, and voxels of each class drawn from `centres`, the label or a part of it."""
        present, voxels = samples.draw(centres)
        row = self._write_array(row, f"label/{name}", label)
        if present:
            row = self._write_array(row, f"samples/{name}", voxels)
        return dataclasses.replace(
            row,
            labels=tuple(sorted({*row.labels, name})),
            present={**row.present, name: present},
            provenance={**row.provenance, name: provenance},
        )

    def _write_array(self, row: Subject, name: str, array: np.ndarray) -> Subject:
        place = f"{row.version:04d}/{name}"
        folder = self._root / (schema.subject_folder(row.id) + place)
        store = ts.open(schema.array_spec(folder, name, array.shape, row.dtype), create=True).result()
        store.write(array).result()
        return dataclasses.replace(
            row,
            folders={**row.folders, name: place},
            digests={**row.digests, name: digests(folder)},
        )

    def _sweep(self, row: Subject) -> None:
        """Remove the folders of earlier versions that no array of `row` lives in."""
        folder = self._root / schema.subject_folder(row.id)
        used = {f"{place}/" for place in row.folders.values()}
        for key in map(bytes.decode, folder.list().result()):
            generation = key.split("/")[0]
            old = generation.isdigit() and int(generation) <= row.version
            if old and not any(key.startswith(place) for place in used):
                folder.write(key, None).result()


def digests(folder: ts.KvStore) -> dict[str, str]:
    """Compute the SHA-256 of every file of an array, by its name below `folder`."""
    folder = folder / "/"
    keys = sorted(key.decode() for key in folder.list().result())
    found = {key: digest(folder, key) for key in keys}
    if gone := [key for key, value in found.items() if value is None]:
        raise FileError(f"{folder.path}{gone[0]}: gone while it was being written; run the ingest job again.")
    return {key: value for key, value in found.items() if value is not None}


@contextlib.contextmanager
def _writing(where: str) -> Iterator[None]:
    """Turn TensorStore's errors into one line that says what to do."""
    try:
        yield
    except UkbobError:
        raise
    except (ValueError, OSError) as error:
        reason = str(error).split(" [")[0]
        raise FileError(f"{where}: cannot write: {reason}. Free space or choose another folder.") from error
