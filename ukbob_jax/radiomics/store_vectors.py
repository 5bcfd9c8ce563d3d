"""Vectors of radiomic features of a group of a store's scans, each measured once and kept."""

import dataclasses
import json
import pathlib
import sys

import numpy as np

from ukbob_jax import advice, anatomy, files
from ukbob_jax.errors import ConfigError, UkbobError
from ukbob_jax.progress import Progress
from ukbob_jax.quality import cohort, verdicts
from ukbob_jax.radiomics import frd_vectors
from ukbob_jax.store import schema
from ukbob_jax.store.reader import Store

CACHE = "frd_rows"
FIELDS = ("subject", "split", "modality", "person")
Table = dict[str, tuple[tuple[str, ...], list[float]]]  # subject -> names and values of its features


@dataclasses.dataclass(frozen=True)
class Group:
    """Scans of a store, and what is measured of each."""

    store: Store
    label: str
    contrast: str
    organ: str
    where: str
    subjects: tuple[str, ...]

    def told(self) -> str:
        """Describe the group in a few words."""
        parts = [
            pathlib.Path(self.store.path).name,
            self.where,
            f"labels {self.label}",
            self.contrast,
            self.organ,
        ]
        return ", ".join(part for part in parts if part)

    def same_arrays(self, other: "Group") -> bool:
        """Whether another group has these very images and labels."""
        mine, theirs = (
            (pathlib.Path(g.store.path).resolve(), g.label, g.contrast, g.organ, g.subjects)
            for g in (self, other)
        )
        return mine == theirs


def group(store: Store, label: str, where: str, field: str, contrast: str, organ: str) -> Group:
    """Choose scans by `where`, words such as "split=train" that must all hold.

    Args:
        field: of `FrdOptions` that `where` comes from, for messages.

    Raises:
        ConfigError: a word names no field, no scan is left, or there are several contrasts and none is named.
    """
    wanted = _wanted(where, field)
    there = sorted({name for row in store.rows.values() for name in row.labels})
    if label not in there:
        raise ConfigError(
            f"{store.path}: no subject has a label set {label!r}. Choose one of {', '.join(there) or 'none'}."
        )
    subjects = [
        name
        for name, row in store.rows.items()
        if label in row.labels
        and all(
            str({"subject": name, "split": row.split, "modality": row.modality, "person": row.person}.get(key)
                if key in FIELDS else row.attributes.get(key)) == value
            for key, value in wanted.items()
        )
    ]  # fmt: skip
    if not subjects:
        having = f" and {where}" if where else ""
        raise ConfigError(
            f"{advice.setting(field)}: {store.path} has no subject with labels {label!r}{having}. Choose others."
        )
    if not contrast:
        names = tuple(store.rows[subjects[0]].contrasts)
        if len(names) != 1:
            raise ConfigError(
                f"{advice.setting('contrast')}: features are of one contrast; choose from {', '.join(names)}."
            )
        contrast = names[0]
    return Group(store, label, contrast, organ, where, tuple(subjects))


def _wanted(where: str, field: str) -> dict[str, str]:
    wanted = {}
    for word in where.split():
        key, equals, value = word.partition("=")
        if not equals or key not in (*FIELDS, *schema.ATTRIBUTES):
            known = ", ".join((*FIELDS, *schema.ATTRIBUTES))
            raise ConfigError(f"{advice.setting(field)}: {word!r} is no NAME=VALUE; names are {known}.")
        wanted[key] = value
    return wanted


def measured(group: Group, version: str, part: str = "") -> tuple[Table, dict[str, UkbobError]]:
    """Measure every scan of a group, or take what any process kept where image, labels and rules are the same.

    Each is kept as soon as it is known, so that a stopped run goes on where it was.

    Returns:
        Features by subject, and errors by subject.
    """
    folder = verdicts.folder(group.store.path, group.label)
    known = _load(folder)
    keys = {subject: _key(group, subject, version) for subject in group.subjects}
    missing = [subject for subject in group.subjects if (subject, keys[subject]) not in known]
    path, errors = folder / f"{CACHE}{part}.jsonl", {}
    progress = Progress("frd", len(group.subjects), done=len(group.subjects) - len(missing))
    for done, subject in enumerate(missing, len(group.subjects) - len(missing) + 1):
        try:
            values = _vector(group, subject, version)
            _append(path, {"subject": subject, "key": keys[subject], "values": values})
            known[subject, keys[subject]] = values
        except UkbobError as error:
            errors[subject] = error
        progress.update(done)
    progress.close()
    print(
        f"frd: {len(missing) - len(errors)} of {len(group.subjects)} scans measured, others are known",
        file=sys.stderr,
    )
    found = {}
    for subject in group.subjects:
        if subject not in errors:
            names = frd_vectors.names(version, is_slice=1 in group.store.rows[subject].shape)
            values = known[subject, keys[subject]]
            found[subject] = names, [np.nan if value is None else value for value in values]
    return found, errors


def _key(group: Group, subject: str, version: str) -> str:
    """Changes with whatever decides a scan's features."""
    row = group.store.rows[subject]
    labels = cohort.version(group.store, subject, group.label)
    return files.fingerprint([row.source, row.folders["image"], labels, group.contrast, group.organ, version])


def _vector(group: Group, subject: str, version: str) -> list[float | None]:
    row = group.store.rows[subject]
    [channel] = row.channel_indices((group.contrast,), advice.setting("contrast"))
    image = group.store.read(subject, "image")[..., channel]
    labels = group.store.read(subject, f"label/{group.label}")
    inside = labels == anatomy.IDS[group.organ] if group.organ else (labels > 0) & (labels != anatomy.IGNORE)
    found = frd_vectors.vector(image, inside, row.spacing_mm, version=version, affine=np.asarray(row.affine))
    names = frd_vectors.names(version, is_slice=1 in image.shape)
    return [files.json_number(found[name]) for name in names]


def _append(path: pathlib.Path, row: dict) -> None:
    """Add a line; one that was cut off before is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")


def _load(folder: pathlib.Path) -> dict[tuple[str, str], list[float | None]]:
    """What earlier runs kept, by subject and key; a line that was cut off counts as none."""
    found = {}
    for path in sorted(folder.glob(f"{CACHE}*.jsonl")):
        for line in files.read_text(path).splitlines():
            try:
                row = json.loads(line)
                found[row["subject"], row["key"]] = row["values"]
            except (ValueError, KeyError, TypeError):
                print(f"warning: {path}: a line is damaged; its scan is measured again", file=sys.stderr)
    return found
