"""A folder in the layout of SA-Med2D-20M as a source: every image a subject of one slice, label set "manual".

Ids are the data set's class ids, their names are kept. Pixels that masks of two classes share have no one class: they are
ignored. What was mended or left out of an image stands in its row (`quality`), as one line each.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError, EmptyError, ValuesError
from ukbob_jax.export2d import reading, slicing
from ukbob_jax.export2d.reading import Entry, Pair, Tables
from ukbob_jax.splits import assign_splits, digest
from ukbob_jax.volumes.case import Description

VERSION = 1  # raise it when what is stored changes
TOLD = 20  # problems of the tables that are told one by one
MODALITIES = {
    "mr": "MR",
    "ct": "CT",
    "pet": "PT",
    "ultrasound": "US",
    "x": "DX",
    "endoscopy": "ES",
    "fundus": "OP",
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One image with its masks."""

    root: str
    entry: Entry
    classes: tuple[tuple[str, str], ...]  # four-digit id and name
    spacing_mm: tuple[float, float]
    split: str = ""

    @property
    def subject(self) -> str:
        """The image's name without its ending, with characters that no store takes replaced."""
        return _safe(os.path.basename(self.entry.path).removesuffix(".png"))

    def files(self) -> list[str]:
        """List the image and its masks."""
        return [f"{self.root}/{self.entry.path}", *(f"{self.root}/{mask.path}" for mask in self.entry.masks)]

    def checksum(self) -> str:
        """Digest the files and settings."""
        sums = []
        for path in self.files():
            with open(path, "rb") as file:
                sums.append(hashlib.sha256(file.read()).hexdigest())
        return digest({"sa_med2d": VERSION, **dataclasses.asdict(self), "root": "", "sums": sums})

    def read(self) -> Pair:
        """Read the image and those of its masks that can be used."""
        tables = Tables(pathlib.Path(self.root), (self.entry,), dict(self.classes), ())
        return reading.read(tables, self.entry)

    def convert(self, pair: Pair) -> dict[str, Any]:
        """Return what a store holds of it: `x y 1 c`, turned back from how it was shown.

        Raises:
            ValuesError: a class id that label maps cannot hold, or no mask is left.
        """
        name = self.entry.name
        labels = np.zeros(pair.image.shape[:2], np.uint8)
        for mask, inside in pair.masks.items():
            organ = int(mask.four)
            if not 0 < organ < anatomy.IGNORE:
                raise ValuesError(
                    f"{mask.path}: class id {mask.four}; label maps hold 1 to {anatomy.IGNORE - 1}. "
                    "Give the class another id."
                )
            taken = inside & (labels > 0) & (labels != organ)
            labels[inside] = organ
            labels[taken] = anatomy.IGNORE
        if not pair.masks:
            raise ValuesError(f"{self.entry.path}: none of its {len(self.entry.masks)} masks can be used.")
        image = np.stack([slicing.unstack(c[None], "z") for c in np.moveaxis(pair.image, 2, 0)], -1)
        known = {four: text for four, text in self.classes if 0 < int(four) < anatomy.IGNORE}
        equal = (pair.image == pair.image[..., :1]).all()
        told = [str(problem) for problem in pair.problems]
        described = Description(
            modality=MODALITIES.get(name.code.split("_")[0], ""),
            contrasts=("image",) if equal else ("red", "green", "blue"),
            label_names={"manual": {int(four): text for four, text in known.items()}},
        )
        return {
            "image": (image[..., :1] if equal else image).astype(np.int16),
            "affine": np.diag([*self.spacing_mm, 1.0, 1.0]),
            "labels": {"manual": slicing.unstack(labels[None], "z")},
            "contrasts": described.contrasts,
            "person": person(self.entry),
            "description": described,
            "quality": {"doubts": told} if told else {},
        }


def list_subjects(
    *,
    root: str,
    datasets: tuple[str, ...] = (),
    codes: tuple[str, ...] = (),
    spacing_mm: tuple[float, ...] = (1.0, 1.0),
    splits: Mapping[str, int] | None = None,
    seed: int = 0,
) -> list[Slice]:
    """List the images of a folder.

    Args:
        root: the folder that holds images and masks.
        datasets: names of data sets to take; empty: all.
        codes: modality codes to take; empty: all.
        spacing_mm: of pixels, columns and rows: the layout does not say it.
        splits: number of cases in each split; the rest trains. All slices of a case are in one.
        seed: draws them.
    Raises:
        FileError: the folder has no tables.
        EmptyError: no image is left.
        ConfigError: two spacings are needed, or there are fewer cases than splits ask for.
    """
    if len(spacing_mm) != 2 or min(spacing_mm) <= 0:
        raise ConfigError(f"config.source.spacing_mm {tuple(spacing_mm)}: expected two lengths in mm.")
    tables = reading.read_tables(root)
    for problem in tables.problems[:TOLD]:
        warnings.warn(f"{root}: {problem}", stacklevel=2)
    if len(tables.problems) > TOLD:
        warnings.warn(f"{root}: {len(tables.problems) - TOLD} more like these", stacklevel=2)
    entries = [
        entry
        for entry in tables.entries
        if (not datasets or entry.name.dataset in datasets) and (not codes or entry.name.code in codes)
    ]
    if not entries:
        raise EmptyError(
            f"{root}: no image of data sets {datasets or 'any'} and codes {codes or 'any'} can be used."
        )
    split_of = assign_splits(list(dict.fromkeys(person(e) for e in entries)), splits or {}, seed)
    shared = tuple(sorted(tables.classes.items())), (float(spacing_mm[0]), float(spacing_mm[1]))
    return [Slice(str(root), entry, *shared, split_of[person(entry)]) for entry in entries]


def person(entry: Entry) -> str:
    """Whose image it is: a case of a data set, with characters that no store takes replaced."""
    return _safe(f"{entry.name.dataset}--{entry.name.case}")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
