"""Training pairs of a store as batches: an endless stream in which each step's batch is a function of (seed, step)."""

import dataclasses
import threading
import zlib
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import grain
import numpy as np

from ukbob_jax.data import pipeline
from ukbob_jax.data.source import shuffled
from ukbob_jax.errors import ConfigError
from ukbob_jax.sentinel import degradation, losses, preprocessing, sampling, views
from ukbob_jax.sentinel.degradation import NOTHING_LEFT
from ukbob_jax.sentinel.predictions import Predictions
from ukbob_jax.sentinel.sampling import Pair
from ukbob_jax.sentinel.sight import Sight
from ukbob_jax.store.reader import Store

PREDICTED = "prediction"  # kind of error of a network's mask


class Scan(NamedTuple):
    """One subject, as pairs are made of it."""

    image: np.ndarray  # x y z, float32
    labels: np.ndarray  # x y z, uint8, taken for true
    spacing_mm: tuple[float, ...]
    window: preprocessing.Window


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of a store's subjects; pair `index` of a subject is a function of the seed.

    Attributes:
        store: where scans and labels are.
        label: label set that is taken for true.
        contrast: that is looked at.
        sight: how the grader looks.
        classes: that are drawn.
        flagged: organs by subject that are not to be trusted, and not drawn.
        kinds: of error, see `SentinelOptions`.
        lost: see `SentinelOptions`.
        seed: of everything drawn; text, so that training and evaluation draw differently.
        predictions: of a segmentation training; None: degraded labels alone.
        predicted: share of the pairs that are such.
    """

    store: Store
    label: str
    contrast: str
    sight: Sight
    classes: frozenset[int]
    flagged: Mapping[str, Collection[int]]
    kinds: tuple[str, ...]
    lost: float
    seed: str
    predictions: Predictions | None = None
    predicted: float = 0.0

    def there(self, subject: str) -> tuple[int, ...]:
        """The classes of a subject that are drawn, ascending."""
        present = self.store.present(subject, self.label)
        return tuple(c for c in present if c in self.classes and c not in self.flagged.get(subject, ()))

    def scan(self, subject: str) -> Scan:
        """Read a subject.

        Raises:
            MismatchError: it lacks the contrast.
            FileError: it is damaged.
        """
        row = self.store.rows[subject]
        [channel] = row.channel_indices((self.contrast,))
        image = np.ascontiguousarray(self.store.read(subject, "image")[..., channel], np.float32)
        window = _windows(self, subject, image)
        return Scan(image, self.store.read(subject, f"label/{self.label}"), row.spacing_mm, window)

    def number(self, subject: str) -> int:
        """The seed of a subject's pairs."""
        return zlib.crc32(f"{self.seed}/{subject}".encode())

    def organ(self, subject: str, index: int) -> int:
        """The class of a pair, known before anything is read."""
        return sampling.organ_at(self.number(subject), index, self.there(subject))[0]

    def pair(self, subject: str, index: int, scan: Scan) -> Pair:
        """The pair number `index` of a subject; its mask is never empty."""
        seed, there = self.number(subject), self.there(subject)
        if self.predictions and np.random.default_rng((seed, 4, index)).random() < self.predicted:
            organ, _ = sampling.organ_at(seed, index, there)
            labels = self.predictions.draw(subject, np.random.default_rng((seed, 5, index)))
            mask, truth = labels == organ, scan.labels == organ
            if mask.any():
                return Pair(organ, PREDICTED, mask, degradation.dice(mask, truth))
        made = sampling.pair_at(
            seed, index, scan.labels, scan.spacing_mm, classes=there, kinds=self.kinds, lost=self.lost
        )
        return made if made.mask.any() else self._instead(made, scan, np.random.default_rng((seed, 6, index)))

    def _instead(self, made: Pair, scan: Scan, rng: np.random.Generator) -> Pair:
        """A mask beside the organ in place of an empty one, of the same Dice; the label where there is no room."""
        organ = degradation.organ_of(scan.labels, made.label, scan.spacing_mm)
        for kind in (kind for kind in NOTHING_LEFT[::-1] if kind in self.kinds):
            mask = degradation.degrade(organ, kind, 1.0, rng)
            if mask is not None and mask.any():
                return Pair(made.label, kind, mask, 0.0)
        return Pair(made.label, "none", scan.labels == made.label, 1.0)

    def views(self, pair: Pair, scan: Scan, rng: np.random.Generator | None = None) -> views.Views:
        """What is seen of a pair, see `views.of_mask`."""
        truth = scan.labels == pair.label
        return views.of_mask(self.sight, scan.image, pair, truth, scan.spacing_mm, scan.window, rng)


_KNOWN: dict[
    tuple[str, str, str, Sight], preprocessing.Window
] = {}  # windows of the scans this process has read
_LOCK = threading.Lock()


def _windows(pairs: Pairs, subject: str, image: np.ndarray) -> preprocessing.Window:
    key = (pairs.store.path, pairs.store.rows[subject].source + subject, pairs.contrast, pairs.sight)
    with _LOCK:
        known = _KNOWN.get(key)
    if known is None:
        known = preprocessing.window(image, pairs.sight.modality, pairs.sight.rule)
        with _LOCK:
            _KNOWN[key] = known
    return known


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """A Grain source: element `step` is this process's share of that step's batch.

    Rows come in groups of `per_scan` from one scan; every epoch reshuffles the subjects. A batch has "seen", "place",
    "dice", "class", "subject"; with `vectors`, "partner": the row of the whole batch that the ranking loss compares with;
    with `outlines`, "truth": the true masks, as seen.
    """

    pairs: Pairs
    subjects: tuple[str, ...]
    batch_size: int
    per_scan: int
    seed: int
    vectors: np.ndarray | None  # k e, for partners; None: found on the device
    outlines: bool = False
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        """Refuse subjects that have nothing to draw."""
        without = [s for s in self.subjects if not self.pairs.there(s)]
        if len(without) == len(self.subjects):
            raise ConfigError(
                f"config.label: no subject has a class of {self.pairs.label!r} to train on. Hold out fewer organs."
            )
        object.__setattr__(self, "subjects", tuple(s for s in self.subjects if s not in set(without)))

    def __len__(self) -> int:
        return 2**62

    def place(self, step: int, row: int) -> tuple[str, int]:
        """Subject and number of the pair that is a row of a step's batch."""
        visit, part = divmod(step * self.batch_size + row, self.per_scan)
        epoch, place = divmod(visit, len(self.subjects))
        subject = self.subjects[int(shuffled(len(self.subjects), self.seed, epoch)[place])]
        return subject, epoch * self.per_scan + part

    def __getitem__(self, record_key: SupportsIndex) -> dict[str, np.ndarray]:
        step, share = int(record_key), self.batch_size // self.processes
        mine = range(self.process * share, (self.process + 1) * share)
        places = [self.place(step, row) for row in mine]
        read: dict[str, Scan] = {}
        drawn = ("truth",) if self.outlines else ()
        arrays = ("seen", "place", "dice", *drawn)
        rows: dict[str, list[Any]] = {name: [] for name in (*arrays, "class", "subject")}
        for subject, index in places:
            if subject not in read:
                read = {subject: self.pairs.scan(subject)}  # neighbouring rows are of one scan
            pair = self.pairs.pair(subject, index, read[subject])
            rng = np.random.default_rng((self.pairs.number(subject), 7, index))
            seen = self.pairs.views(pair, read[subject], rng)
            for name in arrays:
                rows[name].append(getattr(seen, name)[0])
            rows["class"].append(pair.label)
            rows["subject"].append(self.subjects.index(subject))
        batch = {name: np.stack(rows[name]).astype(np.float32) for name in arrays}
        batch |= {name: np.array(rows[name], np.int32) for name in ("class", "subject")}
        if self.vectors is not None:
            everywhere = [self.pairs.organ(*self.place(step, row)) for row in range(self.batch_size)]
            batch["partner"] = losses.pair(self.vectors[everywhere])[mine.start : mine.stop]
        return batch


def batches(source: Batches, start_step: int, threads: int, workers: int) -> Generator[pipeline.Batch]:
    """Yield this process's batches from `start_step` on, made by threads or worker processes.

    Raises:
        ConfigError: the batch does not divide over the processes.
    """
    if source.batch_size % source.processes:
        raise ConfigError(
            f"config.data.batch_size: {source.batch_size} is no multiple of the {source.processes} processes."
        )
    elements: Any = source  # Grain asks for a covariant key
    return pipeline.stream(grain.MapDataset.source(elements)[start_step:], threads, workers)


@dataclasses.dataclass(frozen=True, eq=False)
class Masks:
    """Masks of held-out subjects for an evaluation, all that a grader sees of them, and the truth."""

    seen: np.ndarray  # r ..., float16
    place: np.ndarray  # r 4
    of: np.ndarray  # r, which mask a row shows
    organ: np.ndarray  # m
    kind: list[str]  # m, of error; of two the first
    subject: list[str]  # m
    dice: np.ndarray  # m, true


def held_out(parts: Sequence[tuple[Pairs, int]], subjects: Sequence[str], per_scan: int) -> Masks:
    """Masks of subjects spread evenly over the list, `per_scan` or more of each.

    Args:
        parts: pairs, and about how many of them.
        subjects: of whom.
        per_scan: masks that make it worth to read a scan.
    Raises:
        ConfigError: none of them has an organ to grade.
    """
    found: list[tuple[views.Views, Pair, str]] = []
    for pairs, count in parts:
        able = [subject for subject in subjects if pairs.there(subject)]
        if not able:
            raise ConfigError(f"config.label: no held-out subject has a class of {pairs.label!r} to grade.")
        scans = min(len(able), max(2, -(-count // per_scan)))
        chosen = [able[i] for i in np.unique(np.linspace(0, len(able) - 1, scans).round().astype(int))]
        for subject in chosen:
            scan = pairs.scan(subject)
            for index in range(-(-count // len(chosen))):
                pair = pairs.pair(subject, index, scan)
                found.append((pairs.views(pair, scan), pair._replace(mask=np.zeros(0, bool)), subject))
    return Masks(
        seen=np.concatenate([seen.seen for seen, _, _ in found]).astype(np.float16),
        place=np.concatenate([seen.place for seen, _, _ in found]),
        of=np.repeat(np.arange(len(found)), [len(seen.seen) for seen, _, _ in found]),
        organ=np.array([pair.label for _, pair, _ in found]),
        kind=[pair.kind.split("+")[0] for _, pair, _ in found],
        subject=[subject for _, _, subject in found],
        dice=np.array([pair.dice for _, pair, _ in found]),
    )
