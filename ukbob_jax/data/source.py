"""A store as a Grain source: element i is what is known of subject i before any voxel is read."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ConfigError
from ukbob_jax.store.reader import Store
from ukbob_jax.volumes.intensity import Statistics

ACTIONS = ("ignore", "drop", "background")


class Scan(NamedTuple):
    """One subject as training sees it.

    Attributes:
        index: place in the list of subjects that was asked for.
        shape: voxels, x y z.
        channels: indices of the contrasts to feed, into the stored image.
        statistics: of those channels.
        slope, intercept: of those channels, `image = stored * slope + intercept`.
        lookup: uint8[256], stored label -> label of training (255: ignore).
        classes: label of training -> the stored ids that become it, for those a crop may be centred on.
        annotated: bool `k`, per label of training; None where every class was looked for.
    """

    subject: str
    index: int
    shape: tuple[int, int, int]
    channels: tuple[int, ...]
    statistics: Statistics
    slope: np.ndarray
    intercept: np.ndarray
    lookup: np.ndarray
    classes: dict[int, tuple[int, ...]]
    annotated: np.ndarray | None


class ScanSource:
    """The subjects of a store with label set `label`, in the order given."""

    def __init__(
        self,
        store: Store,
        subjects: Sequence[str],
        label: str,
        *,
        contrasts: Sequence[str] | None = None,
        flagged: Mapping[str, set[int]] | None = None,
        flagged_action: str = "ignore",
        label_map: np.ndarray | None = None,
        num_classes: int = 73,
    ) -> None:
        """Check every subject's row, so that what is missing is told before training starts.

        Raises:
            ConfigError: no subjects are left, an unknown subject, label set or action.
            MismatchError: a subject lacks a contrast.
        """
        if flagged_action not in ACTIONS:
            raise ConfigError(f"flagged_action={flagged_action!r}: expected one of {', '.join(ACTIONS)}.")
        self.store = store
        self.label = label
        self.contrasts = tuple(contrasts or store.rows[store.subjects[0]].contrasts)
        self.num_classes = num_classes
        self._flagged = {subject: frozenset(organs) for subject, organs in (flagged or {}).items() if organs}
        self._replacement = IGNORE if flagged_action == "ignore" else 0
        self._lookup = (
            np.arange(256, dtype=np.uint8) if label_map is None else np.asarray(label_map, np.uint8)
        )
        drop = self._flagged if flagged_action == "drop" else {}
        self._subjects = [(index, name) for index, name in enumerate(subjects) if name not in drop]
        if not self._subjects:
            what = "every subject has a flagged organ and flagged=drop" if drop else "the list is empty"
            raise ConfigError(
                f"{store.path}: no subjects to train on: {what}. Choose another split or flagged=ignore."
            )
        self.partial = False  # whether some subject was annotated for some classes only
        for _, subject in self._subjects:
            self.partial |= self._check(subject)

    def __len__(self) -> int:
        return len(self._subjects)

    def __getitem__(self, position: int) -> Scan:
        index, subject = self._subjects[position]
        row = self.store.rows[subject]
        channels = tuple(row.channel_indices(self.contrasts))
        statistics = Statistics(**row.intensity)
        lookup = self._lookup.copy()
        lookup[list(self._flagged.get(subject, ()))] = self._replacement
        return Scan(
            subject=subject,
            index=index,
            shape=row.shape,
            channels=channels,
            statistics=Statistics(*(tuple(values[c] for c in channels) for values in statistics)),
            slope=_of(channels, row.slope, 1.0),
            intercept=_of(channels, row.intercept, 0.0),
            lookup=lookup,
            classes=centred(row.present[self.label], row.annotated, lookup),
            annotated=row.annotated_classes(self._lookup, self.num_classes) if self.partial else None,
        )

    def _check(self, subject: str) -> bool:
        row = self.store.rows[subject]
        self.store.present(subject, self.label)
        row.channel_indices(self.contrasts)
        return row.annotated is not None


class Epochs:
    """A source without end: its subjects again and again, in a new order every epoch.

    Element i is a pure function of the seed and i. (Grain's own shuffle walks through a domain of many thousand
    indices for every element of a source of a few: 12 ms for each crop from two scans.)
    """

    def __init__(self, source: ScanSource, seed: int) -> None:
        self.source, self.seed = source, seed

    def __len__(self) -> int:
        return 2**62  # Grain takes lengths up to 2**63 - 1

    def __getitem__(self, index: int) -> Scan:
        epoch, place = divmod(int(index), len(self.source))
        return self.source[int(shuffled(len(self.source), self.seed, epoch)[place])]


@functools.lru_cache(maxsize=4)  # epochs that threads of one process read at a time
def shuffled(number: int, seed: int, epoch: int) -> np.ndarray:
    """The order of `number` subjects in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(number)


def centred(
    present: Sequence[int], looked_for: Sequence[int] | None, lookup: np.ndarray
) -> dict[int, tuple[int, ...]]:
    """Label of training -> the stored ids in `present` that become it; no background, ignored or stray classes."""
    classes: dict[int, list[int]] = {}
    for stored in present:
        target = int(lookup[stored])
        if target not in (0, IGNORE) and (looked_for is None or stored in looked_for):
            classes.setdefault(target, []).append(stored)
    return {target: tuple(ids) for target, ids in classes.items()}


def _of(channels: tuple[int, ...], values: Sequence[float] | None, native: float) -> np.ndarray:
    """The values of `channels`, float64; `native` for all where there are none."""
    return np.array([native if values is None else values[c] for c in channels])
