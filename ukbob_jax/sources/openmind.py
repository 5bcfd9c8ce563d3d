"""OpenMind and whatever nnssl reads: a manifest of images with masks of anatomy and of what was anonymised.

Masks are told by name, never by place, and stored as label sets `mask/anatomy` and `mask/anonymisation` of 0 and 1. Images
of a person, who is a subject of a study, share a split.
"""

import collections
import dataclasses
import hashlib
import pathlib
import random
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ukbob_jax import advice
from ukbob_jax.errors import ConfigError, EmptyError, MismatchError
from ukbob_jax.sources import nnssl_arrays
from ukbob_jax.sources import openmind_manifest as manifests
from ukbob_jax.sources.files import Files, ReadOptions, file_digest
from ukbob_jax.sources.openmind_manifest import COLUMNS, NUMBERS, SCORE, Entry, Paths
from ukbob_jax.sources.unusable import Unusable
from ukbob_jax.splits import assign_splits, digest
from ukbob_jax.volumes.case import Case, Description, is_scan, listed, stem
from ukbob_jax.volumes.conditions import Condition, parse
from ukbob_jax.volumes.scan import Scan

VERSION = 1  # raise it when reading or converting changes, so that stores are made anew
CHANNEL = "image"  # name of the one channel, the same for all modalities
NOT_A_NAME = re.compile(r"[^A-Za-z0-9._-]")
LONGEST = 128  # characters of a subject's name
MR = {  # suffixes of BIDS, and maps of diffusion, that only MR has
    "adc", "angio", "bold", "cbv", "dwi", "fa", "flair", "flash", "inplanet1", "inplanet2", "mp2rage", "mtr", "pdt2",
    "pdw", "r1map", "r2map", "r2starmap", "swi", "t1map", "t1w", "t2map", "t2starmap", "t2starw", "t2w", "unit1",
}  # fmt: skip
MODALITIES = {
    "pet": "PT",
    "ct": "CT",
    **dict.fromkeys(MR, "MR"),
}  # in small letters -> DICOM's name; others: not said
SPLIT_SEED = 12345  # nnssl's


@dataclasses.dataclass(frozen=True)
class Image:
    """One image of a manifest.

    Attributes:
        image: file.
        masks: label set and file of each mask.
        person: study and subject.
        modality: such as "T1w".
        attributes: of the row.
        settings: how files are read.
    """

    subject: str
    split: str
    image: str
    masks: tuple[tuple[str, str], ...]
    person: str
    modality: str
    attributes: Mapping[str, Any]
    settings: ReadOptions

    @property
    def preprocessed(self) -> bool:
        """Whether the files are what nnssl's preprocessing writes."""
        return self.image.endswith(nnssl_arrays.ENDING)

    def files(self) -> list[str]:
        """List the image, what is said beside it, and its masks."""
        beside = [str(nnssl_arrays.properties_path(pathlib.Path(self.image)))] if self.preprocessed else []
        return [self.image, *beside, *(path for _, path in self.masks)]

    def checksum(self) -> str:
        """Digest the files' names and bytes, what is said of the image, and the settings."""
        said: dict[str, Any] = {}
        if self.preprocessed:
            said["properties"] = file_digest(self.files()[1])
            said["transpose_forward"] = nnssl_arrays.transposed(pathlib.Path(self.image))
        return digest({"openmind": VERSION, **said, "files": self._files().checksum()})

    def read(self) -> Scan:
        """Read image and masks in RAS.

        Raises:
            ConfigError, FileError, GeometryError, MismatchError, ValuesError: as `Files.read`, `nnssl_arrays.read`.
        """
        given = self._files()
        return nnssl_arrays.read(given.case) if self.preprocessed else given.read()

    def convert(self, scan: Scan) -> dict[str, Any]:
        """Crop and resample as the settings say; masks are 0 and 1."""
        return self._files().convert(scan)

    def _files(self) -> Files:
        modality = MODALITIES.get(self.modality.lower(), "")
        about = Description(modality=modality, contrasts=(CHANNEL,), attributes=self.attributes)
        masks = {name: pathlib.Path(path) for name, path in self.masks}
        case = Case(self.subject, (pathlib.Path(self.image),), masks, self.split, self.person, about)
        return Files(case, self.split, self.settings)


def list_subjects(
    *,
    manifest: str,
    root: str = "",
    variables: Sequence[str] = (),
    modalities: Sequence[str] = (),
    studies: Sequence[str] = (),
    max_quality_score: float = 0.0,
    where: Sequence[str] = (),
    split: Literal["nnssl", "sizes"] = "nnssl",
    splits: Mapping[str, int] | None = None,
    seed: int = 0,
    spacing_mm: Sequence[float] = (),
    order: int = 1,
    crop: bool = False,
    nan: Literal["refuse", "zero"] = "refuse",
    assume_ras: bool = False,
    constant: Literal["refuse", "accept"] = "refuse",
    masks_swapped: bool = True,
) -> list[Image | Unusable]:
    """List the images of a manifest that pass the filters, in its order; no file of theirs is looked at.

    Args:
        manifest: nnssl's pretrain_data.json, also that of its preprocessed images; the flat table as .csv, .tsv or .parquet;
            or a folder of preprocessed images, such as nnsslPlans_onemmiso, of which nothing else is known.
        root: folder that relative paths start from; "": the manifest's.
        variables: NAME=FOLDER for paths that begin with $NAME; others are looked up in the environment.
        modalities: such as ("T1w", "T2w"); empty: all.
        studies: ids of datasets, such as ("ds000001",); empty: all.
        max_quality_score: keep images with this score or less, since 1 is best; images without one are left out then. 0:
            keep all.
        where: conditions on what is known of an image or its person, see `conditions.parse`; all must hold.
        split: "nnssl": draw the persons who validate as nnssl does, from all that the manifest lists, so that filters move
            nobody; "sizes": as `splits` says, of those who are left.
        splits, seed: number of persons in each split, the rest trains; with split="sizes".
        spacing_mm, order, crop, nan, assume_ras, constant: as in `files.ReadOptions`; the last three not for preprocessed
            images.
        masks_swapped: preprocessed images that have both masks have each under the other's name, as nnssl writes them.
    Raises:
        ConfigError: a setting or condition that cannot be used, or a variable that is not set.
        FileError: the manifest cannot be read.
        EmptyError: no image passes the filters.
    """
    options = ReadOptions(
        spacing_mm=tuple(spacing_mm),
        order=order,
        crop=crop,
        nan=nan,
        assume_ras=assume_ras,
        constant=constant,
    )
    if split not in ("nnssl", "sizes"):
        raise ConfigError(f"{advice.setting('split') or 'split'} is {split!r}; expected nnssl or sizes.")
    entries, paths = manifests.read(manifest), Paths(manifest, root, variables)
    validates = nnssl_validation(person_of(entry) for entry in entries) if split == "nnssl" else set()
    kept = chosen(
        entries,
        modalities,
        studies,
        max_quality_score,
        [parse(text, COLUMNS, advice.setting("where") or "where") for text in where],
    )
    if not kept:
        raise EmptyError(f"{manifest}: none of {len(entries)} images passes the filters. Widen them.")
    persons = dict.fromkeys(map(person_of, kept))
    if split == "nnssl":
        split_of = {person: "val" if person in validates else "train" for person in persons}
    else:
        split_of = assign_splits(list(persons), splits or {}, seed)
    names = [subject_name(entry) for entry in kept]
    twice = {name for name, number in collections.Counter(names).items() if number > 1}
    found: list[Image | Unusable] = []
    for entry, name in zip(kept, names):
        person = person_of(entry)
        path, masks = located(entry, paths, masks_swapped)
        image = Image(
            subject=name,
            split=split_of[person],
            image=path,
            masks=masks,
            person=person,
            modality=entry.modality,
            attributes=attributes(entry),
            settings=options,
        )
        found.append(_twice(image, manifest) if name in twice else image)
    return found


def located(entry: Entry, paths: Paths, swapped: bool) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return an image's file, and the label set and file of each mask; paths without an ending are preprocessed files."""
    path = paths.resolve(entry.image)
    masks = tuple((name, paths.resolve(mask)) for name, mask in entry.masks)
    if is_scan(path):
        return path, masks
    path, *others = (
        f.removesuffix(nnssl_arrays.ENDING) + nnssl_arrays.ENDING for f in (path, *(m for _, m in masks))
    )
    names = [name for name, _ in masks]
    return path, tuple(zip(names[::-1] if swapped and len(names) == 2 else names, others))


def chosen(
    entries: Sequence[Entry],
    modalities: Sequence[str],
    studies: Sequence[str],
    max_quality_score: float,
    conditions: Sequence[Condition],
) -> list[Entry]:
    """Return the entries that pass all filters; warn of those without a score where scores count.

    Raises:
        ConfigError: a modality or study that the manifest does not have.
    """
    for name, asked, of in (("modalities", modalities, "modality"), ("studies", studies, "study")):
        known = {getattr(entry, of) for entry in entries} if asked else set()
        if missing := [one for one in asked if one not in known]:
            raise ConfigError(
                f"{advice.setting(name) or name}: {missing[0]!r} is not in the manifest; it has "
                f"{listed(sorted(known))}."
            )
    kept = [
        entry
        for entry in entries
        if (not modalities or entry.modality in modalities)
        and (not studies or entry.study in studies)
        and all(condition(entry.facts) for condition in conditions)
    ]
    if not max_quality_score:
        return kept
    scored = [entry for entry in kept if isinstance(entry.facts.get(SCORE), float)]
    if len(scored) < len(kept):
        warnings.warn(
            f"{len(kept) - len(scored)} of {len(kept)} images have no quality score and are left out.",
            stacklevel=3,
        )
    return [entry for entry in scored if entry.facts[SCORE] <= max_quality_score]


def person_of(entry: Entry) -> str:
    """Return the person of an image; ids of subjects are those of their study."""
    return f"{entry.study}__{entry.person}"


def subject_name(entry: Entry) -> str:
    """Return the name that an image is stored under: study, subject, session and name, as nnssl joins them.

    Other characters than a store takes become "-"; a name that is too long ends in a digest of itself.
    """
    parts = (
        entry.study,
        entry.person,
        entry.session,
        stem(pathlib.Path(entry.name)).removesuffix(nnssl_arrays.ENDING),
    )
    name = NOT_A_NAME.sub("-", "__".join(parts)).lstrip("._-")
    if len(name) <= LONGEST:
        return name
    ending = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[: LONGEST - 13]}-{ending}"


def attributes(entry: Entry) -> dict[str, Any]:
    """Return what a row says of an image beside its arrays."""
    known = {
        COLUMNS[name]: value
        for name, value in entry.facts.items()
        if name not in NUMBERS or isinstance(value, float)
    }
    modality = {"modality": entry.modality} if entry.modality else {}
    return {"study": entry.study, **modality, **known}


def nnssl_validation(persons: Iterable[str]) -> set[str]:
    """Return the persons who validate in nnssl: 1 % of all, but 5 to 1000 and at most four fifths, drawn by its seed.

    Args:
        persons: study and subject of each image, joined by two underscores; repetitions do not count.
    """
    names = sorted(set(persons))
    number = min(1000, max(len(names) // 100, 5), max(1, int(0.8 * len(names))))
    return set(random.Random(SPLIT_SEED).sample(names, number)) if len(names) > 1 else set()


def _twice(image: Image, manifest: str) -> Unusable:
    error = MismatchError(f"{manifest}: {image.subject} is listed twice, as {image.image} too; keep one.")
    return Unusable(image.subject, image.split, tuple(image.files()), error)
