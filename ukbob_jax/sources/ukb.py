"""UK Biobank's bulk archives of field 20201, neck-to-knee Dixon, as a source."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ukbob_jax.errors import ConfigError, EmptyError, FileError, MismatchError, ValuesError
from ukbob_jax.sources.unusable import Unusable
from ukbob_jax.splits import assign_splits, digest
from ukbob_jax.volumes.dicom import CONTRASTS, archive, dixon
from ukbob_jax.volumes.dicom.slices import library
from ukbob_jax.volumes.dicom.stations import Stations

VERSION = 2  # raise it when reading or stitching changes, so that stores are made anew
FIELD = "20201"
FINDINGS = (
    "swapped",
    "missing_stations",
    "gaps_mm",
    "contradicted_series",
)  # of quality, that can be refused
NAME = re.compile(rf"(?P<participant>[A-Za-z0-9]+)_{FIELD}_(?P<instance>\d+)_0\.zip")


@dataclasses.dataclass(frozen=True)
class Archive:
    """One visit of one participant.

    Attributes:
        subject: participant and instance, as in the file's name.
        contrasts: channels, in order.
        spacing_mm: x y z; empty: the scan's own.
        refuse: findings with which a scan is not stored.
    """

    subject: str
    split: str
    path: str
    contrasts: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    refuse: tuple[str, ...]

    def files(self) -> list[str]:
        """List the archive."""
        return [self.path]

    def checksum(self) -> str:
        """Digest the list of the archive's members, with their checksums, and the settings."""
        settings = {"contrasts": self.contrasts, "spacing_mm": self.spacing_mm, "split": self.split}
        return digest({"ukb": VERSION, **settings, "content": archive.fingerprint(self.path)})

    def read(self) -> Stations:
        """Read the stations, as they were acquired.

        Raises:
            FileError, GeometryError, MismatchError: as `read_archive`.
        """
        return dixon.read_archive(self.path, self.contrasts)

    def convert(self, scan: Stations) -> dict[str, Any]:
        """Stitch; label sets "body" (1 inside) and "station" (from 1 at the head) are the scan's own.

        Raises:
            GeometryError, ValuesError: as `dixon.join`, and a finding that is refused.
        """
        found = dixon.join(scan, self.contrasts, self.spacing_mm, self.path)
        for name in self.refuse:
            if finding := found.quality[name]:
                raise ValuesError(f"{self.path}: {name} is {finding}, which config.source.refuse leaves out.")
        return {
            "image": found.image.array,
            "affine": found.image.affine,
            "labels": {"body": found.body.array, "station": found.station.array},
            "contrasts": self.contrasts,
            "attributes": found.attributes,
            "quality": found.quality,
            "person": self.subject.rsplit("_", 1)[0],
        }


def list_subjects(
    *,
    folder: str,
    instance: int = 2,
    contrasts: Sequence[str] = CONTRASTS,
    spacing_mm: Sequence[float] = (),
    refuse: Sequence[str] = (),
    splits: Mapping[str, int] | None = None,
    seed: int = 0,
) -> list[Archive | Unusable]:
    """List the archives below `folder`; a visit with two is unusable.

    Args:
        folder: holds `<participant>_20201_<instance>_0.zip`, in folders of any depth; read only.
        instance: 2 is the first imaging visit, 3 the repeat; -1: all.
        contrasts: to be found at every station; others are left out.
        spacing_mm: of the stitched grid; empty: the stations' own in the plane, their least along z.
        refuse: names of `FINDINGS`; scans that have one are listed as failed instead of stored.
        splits, seed: how many participants go where; the rest trains. All visits of one go the same way.
    Raises:
        ConfigError: an unknown contrast or finding, a spacing that is not three positive numbers, or no pydicom.
        FileError: no such folder.
        EmptyError: no archive of this field and instance in it.
    """
    library()
    if not contrasts or len(set(contrasts)) < len(contrasts) or not set(contrasts) <= set(CONTRASTS):
        raise ConfigError(
            f"config.source.contrasts {tuple(contrasts)}: expected some of {', '.join(CONTRASTS)}."
        )
    if len(spacing_mm) not in (0, 3) or not all(0 < length < np.inf for length in spacing_mm):
        raise ConfigError(
            f"config.source.spacing_mm {tuple(spacing_mm)}: expected three positive numbers, or ()."
        )
    if not set(refuse) <= set(FINDINGS):
        raise ConfigError(f"config.source.refuse {tuple(refuse)}: expected some of {', '.join(FINDINGS)}.")
    found = archives(folder, instance)
    split_of = assign_splits(sorted({participant for participant, _ in found}), splits or {}, seed)
    options = tuple(contrasts), tuple(spacing_mm), tuple(refuse)
    return [
        Archive(f"{who}_{visit}", split_of[who], str(paths[0]), *options)
        if len(paths) == 1
        else _twice(f"{who}_{visit}", split_of[who], paths)
        for (who, visit), paths in sorted(found.items())
    ]


def _twice(subject: str, split: str, paths: list[pathlib.Path]) -> Unusable:
    named = " and ".join(map(str, paths))
    error = MismatchError(f"{named}: {len(paths)} archives of one visit; keep one.")
    return Unusable(subject, split, tuple(map(str, paths)), error)


def archives(folder: str, instance: int) -> dict[tuple[str, int], list[pathlib.Path]]:
    """Find the paths, one if all is well, by participant and instance; -1 takes every instance.

    Raises:
        FileError, EmptyError: as `list_subjects`.
    """
    root = pathlib.Path(folder)
    if not folder or not root.is_dir():
        raise FileError(f"config.source.folder {folder!r}: no such folder.")
    found: dict[tuple[str, int], list[pathlib.Path]] = {}
    others: set[int] = set()
    for path in sorted(root.rglob("*.zip")):
        match = NAME.fullmatch(path.name)
        if not match:
            continue
        visit = int(match["instance"])
        if instance not in (-1, visit):
            others.add(visit)
            continue
        key = match["participant"], visit
        found.setdefault(key, []).append(path)
    if not found:
        there = (
            f" of instance {instance}; there is instance {', '.join(map(str, sorted(others)))}"
            if others
            else ""
        )
        raise EmptyError(
            f"{folder}: no archive *_{FIELD}_*_0.zip{there}. Correct --config.source.folder or --config.source.instance."
        )
    return found
