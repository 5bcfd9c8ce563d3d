"""One subject of a store as images and masks, and the record that says what was written.

images/, masks/             flat, as the published set has them
subjects/ID.json            written last: with the right key, the subject is done and its files are whole
subjects/ID.begun           while it is written: the key of what is under way
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax import anatomy, files, options
from ukbob_jax.errors import ConfigError, FileError, ValuesError
from ukbob_jax.export2d import classes, instances, naming, png, slicing
from ukbob_jax.export2d.classes import Class
from ukbob_jax.export2d.instances import Instances
from ukbob_jax.export2d.naming import ImageName
from ukbob_jax.export2d.options import Export2dOptions, field
from ukbob_jax.export2d.slicing import Greys
from ukbob_jax.store import values
from ukbob_jax.store.reader import Store
from ukbob_jax.store.row import Subject

RULES = "rules.json"
FORMAT = 1  # of files and records: another one exports anew
Record = dict[str, Any]


class Plan(NamedTuple):
    """What is exported: the same for all subjects.

    Attributes:
        label: name of the label set.
        options: the rules.
        exported: stored id -> class.
        folder: where to.
    """

    label: str
    options: Export2dOptions
    exported: dict[int, Class]
    folder: str

    def rules(self) -> dict[str, Any]:
        """Everything that decides the bytes, as JSON has it."""
        named = [[stored, c.name, c.four] for stored, c in self.exported.items()]
        return {"format": FORMAT, "label": self.label, **self.options.rules(), "class_ids": named}

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "Plan":
        """The plan by which `folder` was exported.

        Raises:
            FileError: it is no export.
        """
        rules = files.read_json(pathlib.Path(folder) / RULES)
        try:
            exported = {stored: Class(name, four) for stored, name, four in rules["class_ids"]}
            known = {name: rules[name] for name in options.names(Export2dOptions) if name in rules}
            return cls(rules["label"], Export2dOptions(**known), exported, os.fspath(folder))
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{folder}/{RULES}: not the rules of an export ({error}).") from error

    def record(self, subject: str) -> Record:
        """What was written of a subject.

        Raises:
            FileError: nothing, or not all.
        """
        path = self.record_path(subject)
        if not path.exists():
            raise FileError(f"{self.folder}: subject {subject!r} is not exported, or not yet whole.")
        return files.read_json(path)

    def key(self, store: Store, subject: str) -> str:
        """Changes with whatever decides a subject's files."""
        return files.fingerprint([self.rules(), store.identity(subject, "image", f"label/{self.label}")])

    def record_path(self, subject: str) -> pathlib.Path:
        """Where the subject's record is."""
        return pathlib.Path(self.folder) / "subjects" / f"{subject}.json"


def codes(row: Subject, options: Export2dOptions) -> dict[int, str]:
    """Return channel -> modality code of the contrasts to export.

    Raises:
        ConfigError: a contrast is missing or has no code, or two have the same: so would their files.
    """
    wanted = options.contrasts or row.contrasts
    channels = row.channel_indices(wanted, field("contrasts"))
    modality = row.modality or ("CT" if row.units == "HU" else "")
    given = naming.parse_codes(options.codes)
    found = {
        channel: naming.code(name, modality, len(row.contrasts) == 1, given)
        for channel, name in zip(channels, wanted)
    }
    if len(set(found.values())) < len(found):
        raise ConfigError(
            f"{row.id}: contrasts {', '.join(wanted)} have codes {', '.join(found.values())}; each needs one of its own. "
            f"Give them as {field('codes')}."
        )
    return found


def export(plan: Plan, store: Store, subject: str) -> bool:
    """Write a subject's images, masks and record, unless the record says that they are there.

    Returns:
        Whether anything was written.
    Raises:
        InputError: the subject cannot be exported.
        FileError: the folder cannot be written.
    """
    naming.check_part(subject, "subject")
    record, key, begun = plan.record_path(subject), plan.key(store, subject), None
    if record.exists() and files.read_json(record)["key"] == key:
        return False
    mark = record.with_suffix(".begun")
    with _writing(plan.folder):
        begun = mark.read_text() if mark.exists() else None
        if record.exists() or begun not in (None, key):
            remove(plan, subject)
        files.write_bytes(mark, key.encode())
    made = _write(plan, store, subject)
    files.write_bytes(record, files.json_bytes({"subject": subject, "key": key, **made}))
    mark.unlink()
    return True


def _write(plan: Plan, store: Store, subject: str) -> Record:
    """Write the images and masks of all axes and contrasts."""
    row = store.rows[subject]
    labels = store.read(subject, f"label/{plan.label}")
    exported = classes.lookup(plan.exported)[labels]
    contrasts = codes(row, plan.options)
    image = read_channels(store, subject, list(contrasts))
    greys = {code: Greys(channel, plan.options) for code, channel in zip(contrasts.values(), image)}
    axes = {}
    for axis in plan.options.axes:
        plane = slicing.plane(axis, row.shape, row.spacing_mm, plan.options.pixels)
        if plane.slices > naming.MAX_SLICES:
            raise ValuesError(f"{subject}: {plane.slices} slices along {axis}; names have room for 10,000.")
        if plane.ratio < plan.options.aspect:
            axes[axis] = {"slices": plane.slices, "shape": list(plane.shape), "left_out": "aspect"}
            continue
        found = instances.find(
            slicing.cut(exported, plane, 0), plan.options.min_area, plan.options.merge_pixels
        )
        images = {code: of.slices(plane) for code, of in greys.items()}
        axes[axis] = {"slices": plane.slices, "shape": list(plane.shape)} | _write_axis(
            plan, subject, axis, images, found
        )
    return {
        "shape": list(row.shape),
        "spacing_mm": list(row.spacing_mm),
        "affine": [list(line) for line in row.affine],
        "split": row.split,
        "codes": {code: row.contrasts[channel] for channel, code in contrasts.items()},
        "voxels": int(np.count_nonzero(exported)),
        "left_out_voxels": int(np.count_nonzero(labels) - np.count_nonzero(exported)),
        "ignored_voxels": int(np.count_nonzero(labels == anatomy.IGNORE)),
        "axes": axes,
    }


def read_channels(store: Store, subject: str, channels: Sequence[int]) -> np.ndarray:
    """Read some channels of an image, `c x y z`.

    Raises:
        ValuesError: one has NaN or infinite voxels.
    """
    row = store.rows[subject]
    stored = np.empty((len(channels), *row.shape), row.dtype)
    store.fetch(subject, "image", (0, 0, 0), np.moveaxis(stored, 0, -1), channels)()
    if row.slope is not None and row.intercept is not None:
        chosen = (tuple(of[c] for c in channels) for of in (row.slope, row.intercept))
        stored = np.moveaxis(values.decode(np.moveaxis(stored, 0, -1), *chosen), -1, 0)
    for channel, found in zip(channels, stored):
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise ValuesError(f"{subject}: contrast {row.contrasts[channel]!r} has NaN or infinite voxels.")
    return stored


def _write_axis(
    plan: Plan, subject: str, axis: str, images: dict[str, np.ndarray], found: Instances
) -> dict[str, Any]:
    """Write the slices along one axis.

    Args:
        images: code -> `n h w`, uint8.
    Returns:
        Its part of the record: per slice the classes and numbers of instances, per code which slices show nothing.
    """
    n, h, _ = next(iter(images.values())).shape
    begins = np.searchsorted(found.slices, np.arange(n + 1))
    constant = {
        code: (grey.min((1, 2)) == grey.max((1, 2))) & (np.diff(begins) > 0) for code, grey in images.items()
    }
    listed = []
    pictures = os.path.join(plan.folder, "images")
    masks = os.path.join(plan.folder, "masks")
    with _writing(plan.folder):
        for index in np.flatnonzero(np.diff(begins)).tolist():
            mine = range(begins[index], begins[index + 1])
            organs, numbers = found.organs[mine.start : mine.stop], found.numbers[mine.start : mine.stop]
            files_of = [
                png.mask(found.ids[index], found.components[i], int(found.tops[i]), int(found.bottoms[i]), h)
                for i in mine
            ]
            for code, grey in images.items():
                if constant[code][index]:
                    continue
                stem = naming.image_stem(ImageName(code, plan.options.dataset, subject, axis, index))
                _put(f"{pictures}/{stem}.png", png.image(png.filtered(grey[index : index + 1])[0]))
                for organ, number, data in zip(organs.tolist(), numbers.tolist(), files_of):
                    of = plan.exported[organ]
                    name = naming.mask_stem(plan.options.style, stem, of.four, of.name, number)
                    _put(f"{masks}/{name}.png", data)
            present, counts = np.unique(organs, return_counts=True)
            listed.append([index, np.stack([present, counts], 1).tolist()])
    present, counts = np.unique(found.nonempty[:, 1], return_counts=True)
    return {
        "images": listed,
        "constant": {code: np.flatnonzero(dark).tolist() for code, dark in constant.items()},
        "nonempty": {str(organ): count for organ, count in zip(present.tolist(), counts.tolist())},
        "small": found.small,
        "full": found.full,
    }


def entries(plan: Plan, record: Record) -> Iterator[tuple[str, list[str]]]:
    """Yield what a record lists: each image's stem and the stems of its masks, in the order of axes, codes and slices."""
    style = plan.options.style
    for axis, found in record["axes"].items():
        for code in record["codes"]:
            dark = set(found.get("constant", {}).get(code, ()))
            for index, organs in found.get("images", ()):
                if index in dark:
                    continue
                name = ImageName(code, plan.options.dataset, record["subject"], axis, index)
                stem = naming.image_stem(name)
                of = [(plan.exported[organ], count) for organ, count in organs]
                yield (
                    stem,
                    [
                        naming.mask_stem(style, stem, c.four, c.name, i)
                        for c, count in of
                        for i in range(count)
                    ],
                )


def remove(plan: Plan, subject: str) -> None:
    """Remove what an earlier run wrote of a subject; whole or not, its names begin alike."""
    plan.record_path(subject).unlink(missing_ok=True)
    for folder in ("images", "masks"):
        for entry in os.scandir(os.path.join(plan.folder, folder)):
            if entry.name.split(naming.SEPARATOR)[1:3] == [plan.options.dataset, subject]:
                os.unlink(entry.path)
    plan.record_path(subject).with_suffix(".begun").unlink(missing_ok=True)


def _put(path: str, data: bytes) -> None:
    """Write a small file; the record, not the file, says whether it is whole."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        if os.write(file, data) < len(data):
            raise OSError(28, "No space left on device", path)
    finally:
        os.close(file)


@contextlib.contextmanager
def _writing(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(
            f"{error.filename or folder}: cannot be written: {error.strerror}. Free space or choose another folder."
        ) from error
