"""What a store knows of one subject: a row of its manifest, with a name and a type for every field."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.store import schema


@dataclasses.dataclass(frozen=True, slots=True)
class Channel:
    """One channel of the image.

    Attributes:
        name: of the contrast.
        b_s_mm2: diffusion weighting in s/mm²; None: not a diffusion image, or not known.
        direction: unit vector of the diffusion gradient in the world, towards right, anterior, superior; None: none, or
            not known.
    """

    name: str
    b_s_mm2: float | None = None
    direction: tuple[float, float, float] | None = None

    @property
    def is_named_only(self) -> bool:
        """Return whether nothing but the name is known."""
        return self.b_s_mm2 is None and self.direction is None


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """One subject of a store. The order of the fields is their order on disk.

    Attributes:
        shape: voxels, x y z.
        spacing_mm: x y z.
        affine: 4 4, voxel to world in mm; `np.asarray` makes an array of it.
        channels: of the image, in order.
        labels: names of the label sets, sorted.
        annotated: class ids that were looked for; None: all.
        source: checksum of what the subject was made from.
        version: counts rewrites and added label sets.
        intensity: statistics by name, one number per channel.
        slope, intercept: per channel, `image = stored * slope + intercept`; None: voxels are stored as they were.
        dtype: of the stored image, "int16", or "float32" where int16 would have lost much.
        person: whose scan it is, where one person has several subjects; "": the subject is the person.
        modality: as DICOM spells it, such as "CT", "MR", "PT"; "": not known.
        units: of the voxels, "HU", "SUV" or "arbitrary"; "": not known.
        label_names: per label set, id to name, where the data set names them and the ids were kept.
        regions: per label set, overlapping regions to learn, as `regions.Regions.to_json` writes them.
        attributes: technical facts, of `schema.ATTRIBUTES`.
        quality: findings about the scan or its labels.
        present: per label set, ids of the classes in it, ascending, without background and ignore; of a mask of anatomy
            those left beside what was anonymised, where crops may be centred.
        provenance: per label set, where it came from.
        folders: per array, its place below the subject's folder.
        digests: per array, SHA-256 of its files; empty in the manifest.
        extra: fields that this version does not know; they are written back as they were read.
    """

    id: str
    split: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    channels: tuple[Channel, ...] = ()
    labels: tuple[str, ...] = ()
    annotated: tuple[int, ...] | None = None
    source: str = ""
    version: int = 1
    intensity: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    slope: tuple[float, ...] | None = None
    intercept: tuple[float, ...] | None = None
    dtype: str = "int16"
    person: str = ""
    modality: str = ""
    units: str = ""
    label_names: Mapping[str, Mapping[int, str]] = dataclasses.field(default_factory=dict)
    regions: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quality: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    present: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    digests: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def new(cls, subject: str, shape: Sequence[int], affine: np.ndarray) -> "Subject":
        """Describe a subject of whom only the image is known.

        Args:
            shape: of the image, `x y z c`; channels are named by number.
            affine: `4 4`, voxel to world in mm.
        Raises:
            ValuesError: `subject` cannot be the name of a folder.
        """
        return cls(
            id=schema.check_name(subject, "subject"),
            shape=tuple(shape[:3]),
            spacing_mm=tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()),
            affine=tuple(map(tuple, affine.tolist())),
            channels=tuple(Channel(str(number)) for number in range(shape[3])),
        )

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Return the names of the channels."""
        return tuple(channel.name for channel in self.channels)

    @property
    def owner(self) -> str:
        """Return the person the scan is of: what must not be on both sides of a split."""
        return self.person or self.id

    def channel_indices(self, contrasts: Sequence[str], asked_by: str = "") -> list[int]:
        """Return the channel of each of `contrasts`.

        Args:
            asked_by: the field of a recipe that names them, or whatever else does; "": the data.
        Raises:
            MismatchError: naming the contrasts that are missing and those there are; with `asked_by` a ConfigError.
        """
        index = {name: number for number, name in enumerate(self.contrasts)}
        if missing := [name for name in contrasts if name not in index]:
            message = (
                f"{self.id} has contrasts {list(index)}, not {missing}. "
                "Ask for contrasts that every subject has, or ingest the missing ones."
            )
            raise ConfigError(f"{asked_by}: {message}") if asked_by else MismatchError(message)
        return [index[name] for name in contrasts]

    def annotated_classes(self, lookup: np.ndarray, k: int) -> np.ndarray:
        """Return which of `k` classes the subject's labels speak of, bool `k`; background always.

        A class that several stored ids become counts only where all of them were looked for.

        Args:
            lookup: uint8 `256`, stored id -> class.
        """
        known = np.ones(k, bool)
        if self.annotated is not None:
            missing = np.setdiff1d(np.arange(1, IGNORE), self.annotated)
            targets = lookup[missing]
            known[targets[(targets > 0) & (targets < k)]] = False
        return known

    def decoded_bytes(self, label_set: str = "") -> int:
        """Return the size of the image and, if named, of a label set with its samples, once decompressed."""
        voxels = math.prod(self.shape)
        image = voxels * len(self.channels) * np.dtype(self.dtype).itemsize
        if not label_set:
            return image
        return image + voxels + len(self.present.get(label_set, ())) * schema.SAMPLES * 3 * 2

    def identity(self, *arrays: str) -> dict[str, Any]:
        """Return what changes when one of `arrays` ("image", "label/manual") or a fact of the subject does.

        Everything counts except where the subject stands and what other arrays bring: a field that is added to rows
        counts until it is listed here. The row must have its digests: it comes from `done.json`.
        """
        elsewhere = ("split", "person", "labels", "version", "present", "provenance", "folders", "digests")
        same = {name: value for name, value in self.to_json().items() if name not in elsewhere}
        return same | {name: [self.folders.get(name), self.digests.get(name)] for name in arrays}

    def to_json(self) -> dict[str, Any]:
        """Return the fields in the order in which they are stored.

        "channels" is written only where more than a channel's name is known, person, modality, units, names of
        labels and regions only where they are known, the dtype only where it is not int16, so that other rows keep
        their bytes.
        """
        row: dict[str, Any] = {}
        for name in _FIELDS:
            if name == "channels":
                row["contrasts"] = list(self.contrasts)
                if not all(channel.is_named_only for channel in self.channels):
                    row["channels"] = [dataclasses.asdict(channel) for channel in self.channels]
            elif name == "label_names":
                if self.label_names:
                    row[name] = {
                        key: {str(i): text for i, text in ids.items()}
                        for key, ids in self.label_names.items()
                    }
            elif name == "dtype":
                if self.dtype != "int16":
                    row[name] = self.dtype
            elif getattr(self, name) or name not in _WHERE_KNOWN:
                row[name] = getattr(self, name)
        return row | dict(self.extra)

    @classmethod
    def from_json(cls, row: Mapping[str, Any], where: str = "row") -> "Subject":
        """Read what `to_json` wrote; fields that are missing have their defaults, unknown ones go to `extra`.

        Args:
            where: begins the message of an error.
        Raises:
            FileError: the row has no id, or a field of another type.
        """
        known = dict(row)
        extra = {name: known.pop(name) for name in row if name not in _STORED} if row.keys() - _STORED else {}
        try:
            known["channels"] = _channels(known.pop("contrasts", ()), known.pop("channels", None))
            for name in _TUPLES & known.keys():
                if known[name] is not None:
                    known[name] = tuple(known[name])
            if "label_names" in known:
                known["label_names"] = {
                    name: {int(i): text for i, text in ids.items()}
                    for name, ids in known["label_names"].items()
                }
            if "affine" in known:
                known["affine"] = tuple(map(tuple, known["affine"]))
            return cls(**known, extra=extra)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise FileError(
                f"{where}: not a subject ({type(error).__name__}: {error}). Run the ingest job again to rebuild it."
            ) from error


_FIELDS = tuple(field.name for field in dataclasses.fields(Subject) if field.name != "extra")
_STORED = frozenset((*_FIELDS, "contrasts"))
_WHERE_KNOWN = frozenset(("person", "modality", "units", "regions"))
_TUPLES = frozenset(("shape", "spacing_mm", "labels", "annotated", "slope", "intercept"))


def _channels(contrasts: Sequence[str], channels: Sequence[Mapping[str, Any]] | None) -> tuple[Channel, ...]:
    if channels is None:
        return _named(tuple(contrasts))
    return tuple(
        Channel(c["name"], c.get("b_s_mm2"), None if c.get("direction") is None else tuple(c["direction"]))
        for c in channels
    )


@functools.lru_cache(maxsize=64)  # most rows of a store have the same channels
def _named(contrasts: tuple[str, ...]) -> tuple[Channel, ...]:
    return tuple(map(Channel, contrasts))
