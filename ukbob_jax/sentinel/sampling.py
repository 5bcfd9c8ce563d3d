"""Training pairs from labels: which organ, which error and how bad, as a pure function of (seed, index).

The organs of a scan come in turn, in an order drawn anew for every round, and every organ meets each tenth of the quality
range once in ten rounds. So a training resumes at any index, under any number of workers.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ukbob_jax.errors import ConfigError, ValuesError
from ukbob_jax.sentinel.degradation import KINDS, NOTHING_LEFT, Mask, degrade, dice, organ_of
from ukbob_jax.sentinel.preprocessing import classes_in

BINS = 10  # parts of the quality range
UNTOUCHED = 1 / 3  # share of the best part in which the label stays as it is
LOST = 1 / 2  # share of the worst part in which nothing of the organ is left
TWICE = 0.3  # share of pairs with two errors, one on top of the other
TRIES = 6  # kinds tried for an organ that cannot have the one drawn


class Pair(NamedTuple):
    """A mask of an organ, and how right it is."""

    label: int
    kind: str  # of `degradation.KINDS`, two joined by "+", or "none"
    mask: Mask  # x y z
    dice: float


def pair_at(
    seed: int,
    index: int,
    labels: np.ndarray,
    spacing_mm: Sequence[float] = (1, 1, 1),
    *,
    classes: Sequence[int] | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    seams: Sequence[int] = (),
    lost: float = 0.0,
) -> Pair:
    """The pair number `index` of a label map.

    Args:
        seed: of a training and a subject.
        index: from 0 on.
        labels: x y z, integers, taken for true.
        spacing_mm: of a voxel.
        classes: that may be drawn; by default all that are there. Those that are not there are passed over.
        kinds: errors that may be drawn.
        seams: see `degradation.organ_of`.
        lost: share of the pairs in which nothing of the organ is left, beside those of the worst part.
    Raises:
        ConfigError: an unknown kind, or none that leaves something of the organ.
        ValuesError: none of the classes is there.
    """
    partly = [kind for kind in kinds if kind not in NOTHING_LEFT]
    gone = [kind for kind in kinds if kind in NOTHING_LEFT]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"kind {unknown[0]!r} is unknown; there are {', '.join(KINDS)}.")
    if not partly:
        raise ConfigError(f"kinds {', '.join(kinds) or 'none'}: give one that leaves something of the organ.")
    there = classes_in(np.asarray(labels))
    there = there if classes is None else np.intersect1d(there, classes)
    if not len(there):
        raise ValuesError("labels: none of the classes is there; nothing can be degraded.")
    label, part = organ_at(seed, index, there)
    rng = np.random.default_rng((seed, 1, index))
    truth = labels == label
    choices = gone if gone and lost and np.random.default_rng((seed, 3, index)).random() < lost else partly
    if part == 0 and choices is partly and rng.random() < UNTOUCHED:
        return Pair(label, "none", truth, 1.0)
    severity = (part + rng.random()) / BINS
    choices = gone if gone and part == BINS - 1 and rng.random() < LOST else choices
    organ = organ_of(labels, label, spacing_mm, seams)
    for _ in range(TRIES):
        kind = str(rng.choice(choices))
        if choices is partly and len(partly) > 1 and rng.random() < TWICE:
            kind += f"+{rng.choice([k for k in partly if k != kind])}"
        mask = degrade(organ, kind, severity, rng)
        if mask is not None:
            return Pair(label, kind, mask, dice(mask, truth))
    kind = partly[0]
    mask = degrade(organ, kind, severity, rng)
    return Pair(label, "none", truth, 1.0) if mask is None else Pair(label, kind, mask, dice(mask, truth))


def organ_at(seed: int, index: int, there: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """Organ and tenth of the quality range of pair number `index`, of a label map with the classes `there`, ascending."""
    turn, place = divmod(index, len(there))
    order = np.random.default_rng((seed, 0, turn)).permutation(len(there))
    return int(there[order[place]]), _part(seed, turn, int(order[place]))


def _part(seed: int, turn: int, organ: int) -> int:
    """The part of the quality range that an organ meets in a round: each once in ten rounds, in an order of its own."""
    block, step = divmod(turn, BINS)
    return int(np.random.default_rng((seed, 2, block, organ)).permutation(BINS)[step])


def pairs(
    seed: int,
    labels: np.ndarray,
    spacing_mm: Sequence[float] = (1, 1, 1),
    *,
    count: int,
    start: int = 0,
    classes: Sequence[int] | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    seams: Sequence[int] = (),
    lost: float = 0.0,
) -> Iterator[Pair]:
    """`count` pairs of a label map from number `start` on; see `pair_at`."""
    for index in range(start, start + count):
        yield pair_at(seed, index, labels, spacing_mm, classes=classes, kinds=kinds, seams=seams, lost=lost)


def slice_dice(mask: Mask, truth: Mask) -> np.ndarray:
    """The Dice in each axial slice, z; NaN where both are empty. What a grader of slices is trained on."""
    overlap, total = (mask & truth).sum((0, 1)), mask.sum((0, 1)) + truth.sum((0, 1))
    return np.where(total > 0, 2 * overlap / np.maximum(total, 1), np.nan)
