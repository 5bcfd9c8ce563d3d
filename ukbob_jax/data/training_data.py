"""What a training learns from: opened once, checked once, and handed to whoever asks."""

import dataclasses
import warnings
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ukbob_jax import anatomy, files, splits
from ukbob_jax.data import pipeline
from ukbob_jax.data.options import Config, Crops, Labels, Reading
from ukbob_jax.errors import ConfigError
from ukbob_jax.quality import filters
from ukbob_jax.regions import DATA_SET, Regions, brats, of_data_set
from ukbob_jax.store import people, schema
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes import intensity, plausibility, sets

SAME_SPACING = 0.01  # fraction by which spacings may differ and count as one
SUBJECTS_COUNTED = 32  # label maps whose voxels `class_frequencies` counts


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingData:
    """The subjects of a training, and what their labels mean to the network.

    Attributes:
        store: where they are.
        subjects: that are learnt from.
        held_out: that validate; may be empty.
        label: name of the label set that is learnt; empty: images only.
        contrasts: names of the channels that are fed, in order.
        names: id of training -> name, background included; of regions, the values of a label map. Empty: no labels.
        lookup: uint8[256], stored id -> id of training; None: the same.
        regions: overlapping regions to learn in place of classes; None: classes.
        flagged: stored ids by subject whose labels are not to be trusted.
        weights: how much a label counts in the loss, by subject and stored id; empty: all count the same.
        groups: subject -> name of the person's group, whose errors bound each other in the loss; empty: no groups.
    """

    store: Store
    subjects: tuple[str, ...]
    held_out: tuple[str, ...]
    label: str
    contrasts: tuple[str, ...]
    names: Mapping[int, str]
    lookup: np.ndarray | None
    regions: Regions | None
    flagged: Mapping[str, Collection[int]]
    weights: Mapping[str, Mapping[int, float]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, config: Config, workdir: str) -> "TrainingData":
        """Open the store `config.store` with the subjects, labels and contrasts that the recipe names.

        Raises:
            ConfigError: naming the field, and the unknown subject, split, label set or class.
            FileError: no store, or no verdicts or grades of the labels.
        """
        data = config.data
        store = Store.open(config.store)
        subjects, held_out = splits.choose(config, store, workdir)
        contrasts = tuple(data.contrasts) or tuple(store.rows[subjects[0]].contrasts)
        for subject in (*subjects, *held_out):
            store.rows[subject].channel_indices(contrasts, "config.data.contrasts")
        for told in sets.remarks((store.rows[subject] for subject in subjects), data.normalize):
            warnings.warn(f"{config.store}: {told}", stacklevel=2)
        if not config.label:
            return cls(store, subjects, held_out, "", contrasts, {}, None, None, {})
        _check_label_set(store, subjects, config.label, "config.label")
        _check_label_set(store, held_out, data.val_label, "config.data.val_label")
        present = {label for subject in subjects for label in store.present(subject, config.label)}
        _check_classes(store, config, present, held_out)
        regions = _regions(store, subjects, config, present) if config.regions else None
        named = regions or data.organs or data.names  # by the recipe, whatever the data set says
        described = {} if named else store.label_names(config.label, subjects)
        names = regions.labels if regions else class_names(config, present, described)
        lookup = anatomy.to_names(names) if data.organs else None
        found = _filtered(store, subjects, config)
        groups = _groups(store, subjects, config.loss.groups) if "loss" in config else {}
        return cls(store, subjects, held_out, config.label, contrasts, names, lookup, regions, *found, groups)

    @property
    def num_classes(self) -> int:
        """Channels of a network that learns these labels, background included; of regions, their number."""
        return len(self.regions.names) if self.regions else len(self.names)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups of people, in the order of their numbers."""
        return tuple(sorted(set(self.groups.values()), key=people.in_order))

    @property
    def val_lookup(self) -> np.ndarray:
        """uint8[256], id in the label set of validation -> id of training."""
        return np.arange(256, dtype=np.uint8) if self.lookup is None else self.lookup

    def fingerprint(self) -> str:
        """Return 12 digits of what is learnt from: sources, versions of the arrays, organs left out.

        Other label sets do not count; masks are written with their image.
        """
        arrays = ["image", f"label/{self.label}"] if self.label else ["image"]
        rows = ((subject, self.store.rows[subject]) for subject in self.subjects)
        return files.fingerprint(
            [
                [
                    [subject, row.source, *(row.folders[name] for name in arrays)]
                    + sorted(self.flagged.get(subject, ()))
                    + sorted([organ, weight] for organ, weight in self.weights.get(subject, {}).items())
                    + ([["group", self.groups.get(subject, "")]] if self.groups else [])
                    for subject, row in rows
                ]
            ],
            12,
        )

    def median_spacing(self) -> list[float]:
        """Return the median over the subjects of each axis's spacing, mm."""
        return np.median(self._spacings(), axis=0).tolist()

    def common_spacing(self) -> list[float] | None:
        """Return the spacing in mm that all subjects share, for inference to resample to; None: they differ."""
        spacings = self._spacings()
        median = np.median(spacings, axis=0)
        return median.tolist() if np.all(np.abs(spacings - median) <= SAME_SPACING * median) else None

    def extremes(self) -> dict[str, list]:
        """Return the ranges of the subjects' spacings and fields of view, see `plausibility.describe_training`."""
        shapes = np.array([self.store.rows[subject].shape for subject in self.subjects])
        statistics = self._statistics()
        return plausibility.describe_training(self._spacings(), shapes, statistics and statistics.low)

    def appearance(self) -> dict[str, Any]:
        """Return what the training images are and how bright, JSON values; what no row says is left out.

        Returns:
            "modality" and "units": those of the subjects, sorted. "intensity": contrast -> median over the subjects of
            mean, std and the percentiles 0.5 (`low`) and 99.5 (`high`) of the voxels that are not 0.
        """
        rows = [self.store.rows[subject] for subject in self.subjects]
        said = {name: sorted({getattr(row, name) for row in rows} - {""}) for name in ("modality", "units")}
        found: dict[str, Any] = {name: values for name, values in said.items() if values}
        if statistics := self._statistics():
            medians = {name: np.median(values, axis=0) for name, values in statistics._asdict().items()}
            found["intensity"] = {
                contrast: {name: float(f"{values[c]:.6g}") for name, values in medians.items()}
                for c, contrast in enumerate(self.contrasts)
            }
        return found

    def heavy_tails(self) -> dict[str, int]:
        """Return contrast -> number of subjects where "auto" takes percentiles, see `intensity.heavy_tailed`."""
        statistics = self._statistics()
        counts = intensity.heavy_tailed(statistics).sum(0) if statistics else ()
        return {name: int(count) for name, count in zip(self.contrasts, counts) if count}

    def class_frequencies(self) -> np.ndarray:
        """Return the number of voxels of each class in the first `SUBJECTS_COUNTED` subjects, float64 `num_classes`."""
        counts = np.zeros(self.num_classes)
        for subject in self.subjects[:SUBJECTS_COUNTED]:
            label = self.val_lookup[self.store.read(subject, f"label/{self.label}")]
            counts += np.bincount(label[label != anatomy.IGNORE], minlength=len(counts))
        return counts

    def largest_label(self) -> tuple[str, int]:
        """Return a subject with the largest stored id of all, and that id."""
        largest = {s: max(self.store.present(s, self.label), default=0) for s in self.subjects}
        subject = max(largest, key=lambda name: largest[name])
        return subject, largest[subject]

    def batches(self, config: Config, start_step: int, **crops: Any) -> Generator[pipeline.Batch]:
        """Yield this process's share of the endless stream of packed batches, as `config.data` says.

        Without labels, they honour masks of anatomy and anonymisation, see `pipeline.batches`.

        Args:
            config: the recipe.
            start_step: of the first batch.
            **crops: further fields of `Crops`, such as `views`.
        """
        data = config.data
        labels = None
        if self.label:
            labels = Labels(
                set=self.label,
                lookup=self.lookup,
                flagged=self.flagged,
                action="ignore" if data.flagged == "off" else data.flagged,
                weights=self.weights,
                groups={subject: self.group_names.index(name) for subject, name in self.groups.items()},
                num_classes=256 if self.regions else self.num_classes,
                regions=self.regions.values if self.regions and data.sampling == "nnunet" else (),
            )
        return pipeline.batches(
            self.store,
            self.subjects,
            crops=Crops(tuple(data.crop), data.foreground, sampling=data.sampling, **crops),
            labels=labels,
            batch_size=data.batch_size,
            seed=config.seed,
            start_step=start_step,
            contrasts=self.contrasts,
            normalize=data.normalize,
            masks=not self.label,
            reading=Reading(
                threads=data.threads,
                workers=data.workers,
                cache_gb=data.cache_gb,
                packed=True,
                damaged=data.damaged,
                process=jax.process_index(),
                processes=jax.process_count(),
            ),
        )

    def _statistics(self) -> Any:
        """The subjects' `intensity.Statistics`, each field `n c` in the order of the contrasts; None: a row has none."""
        rows = [self.store.rows[subject] for subject in self.subjects]
        if not all(row.intensity for row in rows):
            return None
        chosen = [row.channel_indices(self.contrasts) for row in rows]
        columns: Any = (
            np.array([[row.intensity[name][c] for c in of] for row, of in zip(rows, chosen)])
            for name in intensity.Statistics._fields
        )
        return intensity.Statistics(*columns)

    def _spacings(self) -> np.ndarray:
        return np.array([self.store.rows[subject].spacing_mm for subject in self.subjects])


def class_names(config: Config, present: Collection[int], described: Mapping[int, str]) -> dict[int, str]:
    """Return id -> name of the classes to learn.

    These are `config.data.organs`, or all of the label set `config.data.names`; by default those that the data set's
    description names, or else ours. Ours have no names for a network of another number of classes,
    `config.model.out_channels`; 0: as many as there are in the labels.

    Args:
        config: the recipe.
        present: stored ids that occur.
        described: id -> name, as `Store.label_names`.
    Raises:
        ConfigError: an unknown organ or label set, or another number of classes.
    """
    if config.data.organs:
        unknown = [name for name in config.data.organs if name not in anatomy.IDS]
        if unknown:
            raise ConfigError(
                f"config.data.organs: {unknown[0]!r} is not a structure; `ukbob_jax.anatomy` lists them."
            )
        return dict(enumerate((anatomy.NAMES[0], *config.data.organs)))
    label_set, k = config.data.names, config.model.out_channels or 1 + max(present, default=0)
    if label_set and label_set not in anatomy.DATASETS:
        raise ConfigError(
            f"config.data.names: {label_set!r} is unknown; choose from {', '.join(anatomy.DATASETS)}."
        )
    if not label_set and (described or k != anatomy.NUM_CLASSES):
        return {0: anatomy.NAMES[0], **{i: _unique(i, described) for i in range(1, k)}}
    names = anatomy.DATASETS[label_set] if label_set else anatomy.NAMES
    if len(names) != k:
        raise ConfigError(
            f"config.model.out_channels is {k}, but {label_set or 'our label set'} has {len(names)} classes."
        )
    return dict(names)


def _unique(i: int, described: Mapping[int, str]) -> str:
    """Name of an id; ids without a name, or with that of another, are told by number."""
    name = described.get(i, "class")
    return name if i in described and list(described.values()).count(name) == 1 else f"{name}_{i}"


def _filtered(store: Store, subjects: Sequence[str], config: Config) -> filters.Filter:
    """The labels that `config.data` says are not to be trusted, or not as much as others."""
    data = config.data
    if data.flagged == "off":
        return filters.Filter({}, {})
    return filters.choose(
        data.flagged_by,
        config.store,
        config.label,
        verdicts_path=data.verdicts,
        grades_path=data.grades,
        present={subject: store.present(subject, config.label) for subject in subjects},
    )


def _groups(store: Store, subjects: Sequence[str], attribute: str) -> dict[str, str]:
    """Subject -> the person's group by the attribute that `config.loss.groups` names; people without it are left out."""
    if not attribute:
        return {}
    if attribute != "age" and attribute not in schema.ATTRIBUTES:
        choices = ", ".join(("age", *schema.ATTRIBUTES))
        raise ConfigError(f"config.loss.groups: {attribute!r} is unknown; choose from {choices}.")
    found = {subject: people.group_of(store.rows[subject].attributes, attribute) for subject in subjects}
    known = {subject: name for subject, name in found.items() if name}
    if len(set(known.values())) < 2:
        names = ", ".join(sorted(set(known.values()))) or "none"
        raise ConfigError(
            f"config.loss.groups: by {attribute!r} the training subjects are of fewer than two groups ({names}). Choose "
            "another attribute, or leave it empty."
        )
    if len(known) < len(found):
        warnings.warn(
            f"config.loss.groups: {attribute!r} is not known of {len(found) - len(known)} of {len(found)} subjects; they "
            "weigh as much as the group with the smallest error.",
            stacklevel=3,
        )
    return known


def _regions(store: Store, subjects: tuple[str, ...], config: Config, present: set[int]) -> Regions:
    """The regions that `config.regions` names: of a numbering, or those of the data set."""
    if config.regions != DATA_SET:
        return brats(config.regions, present)
    found = {subject: store.rows[subject].regions.get(config.label, {}) for subject in subjects}
    return of_data_set(found, store.rows[subjects[0]].label_names.get(config.label, {}), present)


def _check_classes(store: Store, config: Config, present: set[int], held_out: tuple[str, ...]) -> None:
    """Refuse labels without a class to learn, or with one odd id; warn of classes that only validation holds."""
    advice = "Ingest again with config.source.mask_value=VALUE if they are masks of one structure."
    if not present:
        raise ConfigError(
            f"config.label: {config.label!r} has no class to learn: no voxel of the {config.data.train_split!r} "
            f"subjects is labelled, but for 255, which means not annotated. {advice}"
        )
    named = config.regions or config.data.organs or config.data.names or config.model.out_channels
    if not named and len(present) == 1 and min(present) > 1:
        raise ConfigError(f"config.label: {config.label!r} has one id, {min(present)}. {advice}")
    if config.data.val_label != config.label:
        return
    if unseen := sorted({i for subject in held_out for i in store.present(subject, config.label)} - present):
        warnings.warn(
            f"config.label: only validation has {unseen}; no training subject does, so they cannot be learnt. "
            "Choose other splits.",
            stacklevel=3,
        )


def _check_label_set(store: Store, subjects: tuple[str, ...], label: str, field: str) -> None:
    """Refuse a label set that a subject lacks, before hours of training rather than at its crop or validation."""
    for subject in subjects:
        try:
            store.present(subject, label)
        except ConfigError as error:
            raise ConfigError(f"{field}: {error}") from error
