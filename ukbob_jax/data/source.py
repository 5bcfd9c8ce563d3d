"""A store as a Grain source: element i is what is known of subject i before any voxel is read."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.data.options import Labels
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store
from ukbob_jax.store.schema import ANATOMY, ANONYMISATION
from ukbob_jax.volumes.intensity import Statistics


class SubjectSample(NamedTuple):
    """One subject as training sees it.

    Attributes:
        subject: its id in the store.
        number: place in the list of subjects that was asked for.
        shape: voxels, x y z.
        channels: indices of the contrasts to feed, into the stored image.
        statistics: of those channels.
        slope, intercept: of those channels, `image = stored * slope + intercept`.
        lookup: uint8[256], stored label -> label of training (255: ignore); None: no labels.
        classes: label of training -> the stored ids that become it, for those a crop may be centred on.
        annotated: bool `k`, per label of training; None where every class was annotated.
        index: of the sample in the endless stream.
        anonymised: whether a mask says which voxels were altered, and is asked for.
        weights: float32 `k`, how much each label of training counts; None: all the same.
        group: number of the person's group, -1 where it is not known; None: groups are not asked for.
    """

    subject: str
    number: int
    shape: tuple[int, ...]
    channels: tuple[int, ...]
    statistics: Statistics
    slope: np.ndarray
    intercept: np.ndarray
    lookup: np.ndarray | None
    classes: dict[int, tuple[int, ...]]
    annotated: np.ndarray | None
    index: int = 0
    anonymised: bool = False
    weights: np.ndarray | None = None
    group: int | None = None


class ScanSource:
    """The subjects of a store, in the order given, with one label set or without labels."""

    def __init__(
        self,
        store: Store,
        subjects: Sequence[str],
        labels: Labels | None,
        contrasts: Sequence[str] | None = None,
        masks: bool = False,
    ) -> None:
        """Check every subject's row, so that what is missing is found before training starts.

        With `masks`, samples say whether they have a mask of anonymisation; without labels, anatomy is the one class that
        crops are centred on, in the scans that have a mask of it.

        Raises:
            ConfigError: no subjects are left, an unknown subject or label set.
            MismatchError: a subject lacks a contrast.
        """
        self.store, self.labels, self.masks = store, labels, masks
        flagged = {} if labels is None else labels.flagged
        self._flagged = {subject: frozenset(organs) for subject, organs in flagged.items() if organs}
        drop = self._flagged if labels is not None and labels.action == "drop" else {}
        self._subjects = [(number, name) for number, name in enumerate(subjects) if name not in drop]
        if not self._subjects:
            what = "every subject has a flagged organ and flagged=drop" if drop else "the list is empty"
            raise ConfigError(
                f"{store.path}: no subjects to train on: {what}. Choose another split or flagged=ignore."
            )
        self.contrasts = tuple(contrasts or store.rows[store.subjects[0]].contrasts)
        self.decoded_bytes = 0  # of all images, labels and samples of classes
        self.dtype = "int16"  # of a batch's voxels as stored: float32 where that of some subject is
        self.partial = False  # whether some subject was annotated for some classes only
        for _, subject in self._subjects:
            self.partial |= self._check(subject)
            row = store.rows[subject]
            self.decoded_bytes += row.decoded_bytes("" if labels is None else labels.set)
            if masks:
                self.decoded_bytes += math.prod(row.shape) * len({ANATOMY, ANONYMISATION} & {*row.labels})
            if row.dtype != "int16":
                self.dtype = row.dtype

    def __len__(self) -> int:
        return len(self._subjects)

    def __getitem__(self, position: int) -> SubjectSample:
        number, subject = self._subjects[position]
        row = self.store.rows[subject]
        channels = tuple(row.channel_indices(self.contrasts))
        intensity = {name: tuple(values[c] for c in channels) for name, values in row.intensity.items()}
        lookup, classes = self._classes(subject)
        return SubjectSample(
            subject=subject,
            number=number,
            shape=row.shape,
            channels=channels,
            statistics=Statistics(**intensity),
            slope=_select_channels(row.slope, channels, 1.0),
            intercept=_select_channels(row.intercept, channels, 0.0),
            lookup=lookup,
            classes=classes,
            annotated=self._annotated(subject),
            anonymised=self.masks and ANONYMISATION in row.labels,
            weights=self._weights(subject),
            group=self.labels.groups.get(subject, -1) if self.labels and self.labels.groups else None,
        )

    def _classes(self, subject: str) -> tuple[np.ndarray | None, dict[int, tuple[int, ...]]]:
        """Return the lookup of one subject's labels, and the classes that its crops may be centred on."""
        if self.labels is None:
            tissue = self.masks and self.store.rows[subject].present.get(ANATOMY)
            return None, {1: (1,)} if tissue else {}
        lookup = self._lookup(self.labels)
        lookup[list(self._flagged.get(subject, ()))] = IGNORE if self.labels.action == "ignore" else 0
        row = self.store.rows[subject]
        classes = centre_classes(row.present[self.labels.set], row.annotated, lookup)
        return lookup, of_regions(classes, self.labels.regions) if self.labels.regions else classes

    def _annotated(self, subject: str) -> np.ndarray | None:
        if self.labels is None or not self.partial:
            return None
        row = self.store.rows[subject]
        return row.annotated_classes(self._lookup(self.labels), self.labels.num_classes)

    def _weights(self, subject: str) -> np.ndarray | None:
        if self.labels is None or not self.labels.weights:
            return None
        own = self.labels.weights.get(subject, {})
        return class_weights(own, self._lookup(self.labels), self.labels.num_classes)

    @staticmethod
    def _lookup(labels: Labels) -> np.ndarray:
        """Return a new uint8[256], stored id -> id of training."""
        return np.array(np.arange(256) if labels.lookup is None else labels.lookup, np.uint8)

    def _check(self, subject: str) -> bool:
        """Check one subject's row; return whether it was annotated for some classes only."""
        row = self.store.rows[subject]
        if self.labels is not None:
            self.store.present(subject, self.labels.set)
        row.channel_indices(self.contrasts)
        return self.labels is not None and row.annotated is not None


class Epochs:
    """A source without end: its subjects again and again, in a new order every epoch.

    Element i is a pure function of the seed and i. (Grain's own shuffle walks through a domain of many thousand
    indices for every element of a source of a few: 12 ms for each crop from two scans.)
    """

    def __init__(self, source: ScanSource, seed: int) -> None:
        self.source, self.seed = source, seed

    def __len__(self) -> int:
        return 2**62  # Grain takes lengths up to 2**63 - 1

    def __getitem__(self, index: int) -> SubjectSample:
        epoch, place = divmod(int(index), len(self.source))
        sample = self.source[int(shuffled(len(self.source), self.seed, epoch)[place])]
        return sample._replace(index=int(index))


@functools.lru_cache(maxsize=4)  # epochs that threads of one process read at a time
def shuffled(number: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of `number` subjects in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(number)


def centre_classes(
    present: Sequence[int], annotated: Sequence[int] | None, lookup: np.ndarray
) -> dict[int, tuple[int, ...]]:
    """Return the classes that a crop may be centred on: label of training -> the stored ids that become it.

    Background, ignored classes and those that nobody annotated are left out.

    Args:
        present: stored ids that occur.
        annotated: stored ids that the subject was annotated for; None: all.
        lookup: uint8[256], stored id -> label of training.
    """
    classes: dict[int, list[int]] = {}
    known = set(present if annotated is None else annotated)
    for stored in present:
        target = int(lookup[stored])
        if target not in (0, IGNORE) and stored in known:
            classes.setdefault(target, []).append(stored)
    return {target: tuple(ids) for target, ids in classes.items()}


def class_weights(weights: Mapping[int, float], lookup: np.ndarray, k: int) -> np.ndarray:
    """Return how much each of `k` classes counts, float32 `k`: 1 for background and what has no weight.

    A class that several stored ids become counts as much as the least of them.

    Args:
        weights: by stored id.
        lookup: uint8[256], stored id -> class.
        k: classes.
    """
    found = np.ones(k, np.float32)
    least: dict[int, float] = {}
    for stored, weight in weights.items():
        target = int(lookup[stored])
        if 0 < target < k:
            least[target] = min(weight, least.get(target, weight))
    found[list(least)] = list(least.values())
    return found


def of_regions(
    classes: Mapping[int, Sequence[int]], regions: Sequence[Sequence[int]]
) -> dict[int, tuple[int, ...]]:
    """Return number of region -> the stored ids in it, for the regions of which a subject has any.

    Args:
        classes: id of training -> stored ids, as `centre_classes`.
        regions: the ids of training of each.
    """
    found = {
        number: tuple(stored for target in ids for stored in classes.get(target, ()))
        for number, ids in enumerate(regions)
    }
    return {number: stored for number, stored in found.items() if stored}


def _select_channels(values: Sequence[float] | None, channels: tuple[int, ...], default: float) -> np.ndarray:
    """Return the values of `channels`, float64; `default` for all where there are none."""
    return np.array([default if values is None else values[c] for c in channels])
