"""Folders of NIfTI as a source, in any of the layouts of `volumes/layouts`."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ukbob_jax import advice, anatomy
from ukbob_jax.diffusion import gradients
from ukbob_jax.errors import ConfigError, FileError, MismatchError, ValuesError
from ukbob_jax.sources import names_in_headers, persons, steps
from ukbob_jax.sources.unusable import Unusable
from ukbob_jax.splits import assign_splits, digest, units
from ukbob_jax.store import schema
from ukbob_jax.store.row import Channel
from ukbob_jax.volumes import label_table, layouts, plausibility
from ukbob_jax.volumes.case import Case, Description, is_scan
from ukbob_jax.volumes.nifti import read_header
from ukbob_jax.volumes.resample import CUBIC, LINEAR
from ukbob_jax.volumes.scan import Scan, check_ids, read_case
from ukbob_jax.volumes.volume import Volume

VERSION = 1  # raise it when reading or converting changes, so that stores are made anew


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How files become arrays, the same for every subject.

    Attributes:
        spacing_mm: resample to it, x y z after reorientation; empty: keep each scan's own.
        label_map: a key of `anatomy.DATASETS` whose ids become ours; "": keep the ids.
        label_table: a file of source id, target id and name for ids of one's own, as `volumes.label_table` reads it;
            "": keep the ids.
        num_classes: label ids are 0 to num_classes - 1, or 255; 0: any up to 254.
        contrasts: a name per channel; empty: numbers.
        nan: "refuse" scans with NaN or infinite voxels, or "zero" those voxels.
        assume_ras: accept scans that do not say how they are oriented.
        constant: "refuse" scans with a channel of one value throughout, or "accept" them.
        mask_value: labels are masks of one structure with this value inside, such as 255; it becomes 1. 0: they are
            label maps, in which 255 means "not annotated".
        order: of the splines that resample images: 1 linear, 3 cubic.
        crop: cut every scan to the box of its voxels that are not 0, before it is resampled.
        person: regular expression whose one group is the person in a subject's id, such as "(.+)_[LR]" where left and
            right are subjects of their own; splits and folds keep a person's subjects together. "": as the layout says.
    Raises:
        ConfigError: an unknown label map or choice, a mask value outside 0 to 255, a pattern without one group, or a
            spacing that is not three positive numbers.
    """

    spacing_mm: tuple[float, ...] = ()
    label_map: str = ""
    num_classes: int = 0
    contrasts: tuple[str, ...] = ()
    nan: Literal["refuse", "zero"] = "refuse"
    assume_ras: bool = False
    constant: Literal["refuse", "accept"] = "refuse"
    label_table: str = ""
    mask_value: int = 0
    person: str = ""
    order: int = LINEAR
    crop: bool = False

    def __post_init__(self) -> None:
        """Make tuples of a recipe's lists, and refuse values that mean nothing."""
        for name in ("spacing_mm", "contrasts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in (("nan", ("refuse", "zero")), ("constant", ("refuse", "accept"))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{_field(name)} is {getattr(self, name)!r}; expected {' or '.join(choices)}."
                )
        if self.order not in (LINEAR, CUBIC):
            raise ConfigError(f"{_field('order')} is {self.order}; expected {LINEAR} or {CUBIC}.")
        if self.label_map and self.label_table:
            raise ConfigError(
                f"{_field('label_map')} and {_field('label_table')} both change the ids; give one."
            )
        if not 0 <= self.mask_value <= anatomy.IGNORE:
            raise ConfigError(f"{_field('mask_value')} is {self.mask_value}; expected 1 to 255, or 0.")
        persons.groups(self.person)
        if self.label_map:
            anatomy.from_dataset(self.label_map)  # refuses an unknown name before any file is read
        positive = all(0 < length < np.inf for length in self.spacing_mm)
        if len(self.spacing_mm) not in (0, 3) or not positive:
            raise ConfigError(
                f"{_field('spacing_mm')} {self.spacing_mm}: expected three positive numbers, or ()."
            )


@dataclasses.dataclass(frozen=True)
class Files:
    """One subject in files.

    Attributes:
        case: where they are.
        split: of the subject.
        settings: how they are read.
        names_in_files: per label set, id to name as the label map's own header says; counts where the data set says
            nothing, and not in the checksum, which has the file's bytes.
    """

    case: Case
    split: str
    settings: ReadOptions
    names_in_files: Mapping[str, Mapping[int, str]] = dataclasses.field(default_factory=dict)

    @property
    def subject(self) -> str:
        """The subject's id."""
        return self.case.subject

    def files(self) -> list[str]:
        """List images, label maps and gradients; of a folder of masks every file in it."""
        paths = [*self.case.images, *self.case.labels.values(), *self.case.gradients]
        inner = [sorted(filter(is_scan, path.rglob("*"))) if path.is_dir() else [path] for path in paths]
        return [str(path) for found in inner for path in found]

    def checksum(self) -> str:
        """Digest the files' names and bytes, in order, the names of the label sets, and the settings."""
        content = [(pathlib.Path(path).name, file_digest(path)) for path in self.files()]
        content.append(("label sets", ", ".join(self.case.labels)))
        settings = dataclasses.asdict(self.settings)
        if not settings["label_table"]:
            del settings["label_table"]  # stores made before there were tables stay as they are
        else:
            content.append(("label table", file_digest(self.settings.label_table)))
        del settings["person"]  # counts as the person it finds
        said = {"person": self.case.person, **dataclasses.asdict(self.case.description)}
        said = {name: value for name, value in said.items() if value}
        for name, default in (("mask_value", 0), ("order", LINEAR), ("crop", False)):
            if settings[name] == default:
                del settings[name]  # stores made before there was one stay as they are
        return digest({"files": VERSION, **settings, **said, "split": self.split, "content": content})

    def read(self) -> Scan:
        """Read the scan in RAS and check it.

        Raises:
            ValuesError: a channel holds nothing, and `constant` refuses it.
            FileError, GeometryError, MismatchError, ValuesError: as `read_case`.
        """
        dataset = anatomy.DATASETS.get(self.settings.label_map)
        names = dataset or {i: name for i, name in anatomy.NAMES.items() if i != anatomy.UNUSED}
        scan = read_case(
            self.case,
            num_classes=self._ids_in_files(),
            organs={name: organ for organ, name in names.items() if organ},
            nan=self.settings.nan,
            assume_ras=self.settings.assume_ras,
        )
        if not (self.settings.label_table or self.settings.mask_value):
            check_ids(self.case, scan)
        if self.settings.constant == "refuse":
            check_varies(scan.image.array, self.case.images, self.settings.contrasts)
        return scan._replace(labels={name: self._learnt(name, one) for name, one in scan.labels.items()})

    def _ids_in_files(self) -> int | None:
        """Number of ids that the label maps may have as they lie in the files; None: any."""
        dataset = anatomy.DATASETS.get(self.settings.label_map)
        number = self.settings.num_classes or (max(dataset) + 1 if dataset else None)
        if self.settings.mask_value or number is None:
            return None
        ignored = [i for ids in self.case.description.ignored.values() for i in ids]
        return max([number, *(i + 1 for i in ignored)])

    def _learnt(self, name: str, label: Volume) -> Volume:
        """Replace what means "not annotated" by 255, and the value of a mask by 1.

        Raises:
            ValuesError: a mask with other values.
        """
        if schema.is_mask(name):
            return steps.binary(label, str(self.case.labels[name]))
        value, ignored = self.settings.mask_value, self.case.description.ignored.get(name, ())
        if value:
            inside = label.array == value
            if ((label.array != 0) & ~inside).any():
                other = sorted(set(np.unique(label.array).tolist()) - {0, value})
                raise ValuesError(
                    f"{self.case.labels[name]}: values {other} in a mask of {_field('mask_value')}={value}. "
                    "Leave it out for label maps."
                )
            return dataclasses.replace(label, array=inside.astype(np.uint8))
        if not ignored or self.settings.label_table:  # with a table, 255 may be a structure; see `_table`
            return label
        array = label.array.astype(np.result_type(label.array, np.uint8))
        array[np.isin(array, ignored)] = anatomy.IGNORE
        return dataclasses.replace(label, array=array)

    def steps(self) -> tuple[steps.Step, ...]:
        """Return what is done to the scan before it is stored, in order."""
        crop = (steps.crop_to_content(),) if self.settings.crop else ()
        spacing_mm, order = self.settings.spacing_mm, self.settings.order
        resample = (steps.resample(spacing_mm, order),) if spacing_mm else ()
        relabel = (steps.relabel(self.settings.label_map),) if self.settings.label_map else ()
        table = (steps.map_ids(self._table()),) if self.settings.label_table else ()
        return *table, *crop, *resample, *relabel

    def _table(self) -> label_table.LabelTable:
        """Read the table of ids; what the data set says is not annotated needs no row in it."""
        table = label_table.read(self.settings.label_table)
        ignored = [i for ids in self.case.description.ignored.values() for i in ids]
        return table._replace(targets={**table.targets, **dict.fromkeys(ignored, anatomy.IGNORE)})

    def convert(self, scan: Scan) -> dict[str, Any]:
        """Apply the steps and return what is stored.

        Raises:
            ValuesError: label ids above 255.
        """
        said, contrasts = self.case.description, self.settings.contrasts or self.case.description.contrasts
        doubts = [
            *plausibility.doubts(scan.image.affine, scan.image.shape),
            *plausibility.value_doubts(scan.image.array, contrasts, said.modality, said.units),
            *(d for name, label in scan.labels.items() for d in self._label_doubts(name, label)),
        ]
        for step in self.steps():
            scan = step(scan)
        return {
            "image": scan.image.array,
            "affine": scan.image.affine,
            "labels": {name: steps.as_bytes(label, name) for name, label in scan.labels.items()},
            "contrasts": self._channels(scan),
            "attributes": dict(said.attributes),
            "annotated": annotated(scan),
            "person": self.case.person,
            "description": self._description(),
            "quality": {"doubts": doubts} if doubts else {},
        }

    def _channels(self, scan: Scan) -> Sequence[str | Channel]:
        """Names of the channels that the settings give, in a diffusion series with the gradient of each.

        Raises:
            FileError, MismatchError, ValuesError: as `gradients.read`.
        """
        if not self.case.gradients:
            return self.settings.contrasts
        bval, bvec = self.case.gradients
        count = scan.image.array.shape[3]
        found = gradients.read(bval, bvec, read_header(self.case.images[0]).affine, count)
        names = self.settings.contrasts or [str(number) for number in range(count)]
        if len(names) != count:
            return names  # refused when the image is stored
        return [
            Channel(name, float(b), tuple(direction.tolist()) if direction.any() else None)
            for name, b, direction in zip(names, *found)
        ]

    def _label_doubts(self, name: str, label: Volume) -> list[str]:
        """What is doubtful about a label map whose ids are still those of its file; of a mask they are not."""
        if schema.is_mask(name):
            return []
        settings = self.settings
        mapped = settings.label_map or settings.label_table or settings.num_classes
        known = bool(mapped or name in self.names_in_files or self.case.labels[name].is_dir())
        said = self.case.description
        names = said.label_names.get(name) if not settings.mask_value else None
        named = {*names, *said.ignored.get(name, ())} if names else ()
        return plausibility.label_doubts(label.array, name, named, known)

    def _description(self) -> Description:
        """What the data set says, of the ids that are stored."""
        said = dataclasses.replace(self.case.description, label_names=self._label_names())
        renumbered = self.settings.label_table or self.settings.label_map
        return dataclasses.replace(said, regions={}) if renumbered else said

    def _label_names(self) -> Mapping[str, Mapping[int, str]]:
        """Names of the ids that are stored: the data set's, else the file's, unless ids are mapped to ours."""
        if self.settings.label_table:
            names = label_table.read(self.settings.label_table).names
            return {name: names for name in self.case.labels if not schema.is_mask(name)}
        if self.settings.label_map:
            return {}
        said = {**self.names_in_files, **self.case.description.label_names}
        if value := self.settings.mask_value:
            return {name: {1: ids[value]} for name, ids in said.items() if value in ids}
        return said


def list_subjects(
    *,
    layout: str,
    paths: Mapping[str, str],
    splits: Mapping[str, int] | None = None,
    seed: int = 0,
    **settings: Any,
) -> list[Files | Unusable]:
    """List the subjects of a dataset.

    Args:
        layout: a name of `volumes.layouts`.
        paths: what that layout takes, such as images and labels, or root and selectors; "": not given.
        splits: number of persons in each split, of those without a split of their own; the rest trains. All subjects of
            a person go the same way.
        seed: decides who goes where.
        **settings: fields of `ReadOptions`.
    Raises:
        ConfigError: an unknown layout, as `ReadOptions`, or as `persons.with_persons`.
        FileError, MismatchError: as the layout; a single subject that cannot be used raises it in `read`.
    """
    options = ReadOptions(**settings)
    cases = layouts.list_cases(layout, **{name: path for name, path in paths.items() if path})
    cases = persons.with_persons(cases, options.person) if options.person else cases
    persons.warn_of_several_splits(cases)
    owners = {
        case.subject: case.person or case.subject for case in cases if not case.split and not case.problem
    }
    unit_of = units(list(owners), owners)
    split_of = assign_splits(list(dict.fromkeys(unit_of.values())), splits or {}, seed)
    renumbered = options.label_map or options.label_table
    names = [{} for _ in cases] if renumbered else names_in_headers.collect(cases)
    return [
        _source(case, case.split or split_of.get(unit_of.get(case.subject, ""), ""), options, named)
        for case, named in zip(cases, names)
    ]


def _source(
    case: Case, split: str, options: ReadOptions, names: Mapping[str, Mapping[int, str]]
) -> Files | Unusable:
    if not case.problem:
        return Files(case, split, options, names)
    files = (*case.images, *case.labels.values())
    return Unusable(case.subject, split, tuple(map(str, files)), MismatchError(case.problem))


def file_digest(path: str) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        FileError: missing, such as behind a link that leads nowhere, or unreadable.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(
            f"{path}: cannot be read: {error.strerror}. Fetch it, or permit reading it."
        ) from error


def check_varies(image: np.ndarray, paths: Sequence[pathlib.Path], contrasts: Sequence[str]) -> None:
    """Refuse an image `x y z c` with a channel that shows nothing: an empty export, or a contrast that is missing.

    Raises:
        ValuesError: naming file, channel and value.
    """
    for channel in range(image.shape[3]):
        values = image[..., channel]
        if values.min() == values.max():
            path = paths[channel] if len(paths) == image.shape[3] else paths[0]
            name = f" ({contrasts[channel]})" if channel < len(contrasts) else ""
            raise ValuesError(
                f"{path}: channel {channel}{name} is {str(values.flat[0]).removesuffix('.0')} in every voxel. "
                f"Export it again, or take it all the same with {advice.setting('constant', 'accept')}."
            )


def _field(name: str) -> str:
    """A field of `ReadOptions` as the user wrote it."""
    return advice.setting(name) or name


def annotated(scan: Scan) -> list[int] | None:
    """Return the ids that were looked for in every label set of the scan; None: all."""
    sets = [set(ids) for ids in scan.annotated.values() if ids is not None]
    return sorted(set.intersection(*sets)) if sets else None
