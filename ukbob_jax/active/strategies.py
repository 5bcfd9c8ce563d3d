"""What to annotate next: a score and a way to choose by it, under the names of the literature."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ukbob_jax.active import choices, randomly
from ukbob_jax.active.committee import Scorer
from ukbob_jax.active.patches import Size, Unit, best_of_all, free_starts, greedy
from ukbob_jax.active.uncertainty import box_mean, cut_to
from ukbob_jax.errors import ConfigError
from ukbob_jax.progress import track

UNITS = ("scan", "patch")
CANDIDATES = 2  # times the query, among which variety chooses


class Strategy(NamedTuple):
    """How units are chosen.

    Attributes:
        score: one of `committee.MAPS`; empty: chance alone.
        choice: "chance", "foreground" (chance where structures are), "best" score, "power" (noise on the scores), "rank"
            (noise on their order), "variety" (k-means++ among the best), "classes" (a share for each class).
    """

    score: str
    choice: str


STRATEGIES = {
    "random": Strategy("", "chance"),
    "foreground_random": Strategy("", "foreground"),
    "entropy": Strategy("predictive_entropy", "best"),
    "expected_entropy": Strategy("expected_entropy", "best"),
    "mutual_information": Strategy("mutual_information", "best"),
    "power_noise": Strategy("predictive_entropy", "power"),
    "soft_rank": Strategy("predictive_entropy", "rank"),
    "kmeans": Strategy("predictive_entropy", "variety"),
    "class_entropy": Strategy("class_entropy", "classes"),
    "sentinel": Strategy("sentinel", "best"),
    "sentinel_diverse": Strategy("sentinel", "variety"),
}


def find(name: str, field: str) -> Strategy:
    """The strategy called `name`.

    Raises:
        ConfigError: there is none; `field` is named.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"{field}: {name!r} is unknown; choose from {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]


@dataclasses.dataclass(frozen=True)
class Pool:
    """What there is to choose from.

    Attributes:
        shapes: of the scans, voxels x y z.
        unit: "scan" or "patch".
        patch: sides of a patch, voxels x y z; cut to smaller scans.
        labelled: units that are labelled already.
        segmentation: subject -> labels `x y z` that foreground-aware random looks at; None: there are none.
        present: subject -> ids of the structures in it, for the same.
        odds: of foreground-aware random, a key of `randomly.ODDS`.
        overlap: fraction of a patch that labelled and chosen ones may cover.
    """

    shapes: Mapping[str, Size]
    unit: str = "scan"
    patch: Sequence[int] = (32, 32, 32)
    labelled: Sequence[Unit] = ()
    segmentation: Callable[[str], np.ndarray] | None = None
    present: Callable[[str], Sequence[int]] | None = None
    odds: str = "equal"
    overlap: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        if self.unit not in UNITS:
            raise ConfigError(
                f"config.active.unit: {self.unit!r} is unknown; choose one of {', '.join(UNITS)}."
            )
        if len(self.patch) != 3 or min(self.patch) < 1:
            raise ConfigError(
                f"config.active.patch: {tuple(self.patch)} is not three numbers of voxels, x y z."
            )
        if self.odds not in randomly.ODDS:
            raise ConfigError(
                f"config.active.odds: {self.odds!r} is unknown; choose one of {', '.join(randomly.ODDS)}."
            )
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"config.active.overlap: {self.overlap} is not a fraction in [0, 1).")

    def size(self, subject: str) -> Size:
        """Sides of the units of a scan."""
        return self.shapes[subject] if self.unit == "scan" else cut_to(self.patch, self.shapes[subject])

    def taken(self, subject: str) -> list[Unit]:
        """What is labelled of a scan."""
        return [unit for unit in self.labelled if unit.subject == subject]

    def open_subjects(self) -> list[str]:
        """Scans in which a unit still fits."""
        return [
            subject
            for subject, shape in self.shapes.items()
            if free_starts(shape, self.size(subject), self.taken(subject), self.overlap).any()
        ]


def choose(
    name: str,
    pool: Pool,
    number: int,
    rng: np.random.Generator,
    scorer: Scorer | None = None,
    beta: float = 1.0,
) -> list[Unit]:
    """Choose units of annotation, the first the most wanted.

    Args:
        name: of the strategy.
        pool: to choose from.
        number: of units; fewer where no more fit.
        rng: of whatever is drawn.
        scorer: what gives the scores; None for strategies of chance.
        beta: of noise, the larger, the less chance, see `choices.rising_beta`.
    Raises:
        ConfigError: an unknown strategy, or one that lacks what it needs.
    """
    strategy = find(name, "config.active.strategies")
    if not strategy.score:
        return by_chance(strategy, pool, number, rng)
    if scorer is None:
        raise ConfigError(
            f"config.active.strategies: {name!r} takes trained networks; the first units cannot."
        )
    found = candidates(strategy, pool, number, rng, scorer, beta)
    plain = found.pop(0, [])
    if strategy.choice == "classes":
        return choices.by_class(found, plain, number)
    if strategy.choice == "rank":
        noisy = choices.soft_rank(np.array([unit.score for unit in plain]), beta, rng)
        plain = [unit._replace(score=float(score)) for unit, score in zip(plain, noisy)]
    if strategy.choice == "variety":
        near = best_of_all(plain, CANDIDATES * number)
        rows = choices.kmeans_plus_plus(scorer.features(near), number, rng) if near else []
        return [near[row] for row in rows]
    return best_of_all(plain, number)


def by_chance(strategy: Strategy, pool: Pool, number: int, rng: np.random.Generator) -> list[Unit]:
    """Units of the random strategies.

    Raises:
        ConfigError: there are no labels to know structures by.
    """
    aware = strategy.choice == "foreground"
    if aware and (pool.segmentation is None or pool.present is None):
        raise ConfigError("config.active.strategies: 'foreground_random' takes labels or a trained network.")
    if pool.unit == "scan":
        left = {subject: pool.shapes[subject] for subject in pool.open_subjects()}
        return randomly.scans(left, number, rng, pool.present if aware else None)
    return randomly.patches(
        pool.shapes,
        pool.patch,
        number,
        pool.labelled,
        rng,
        pool.segmentation if aware else None,
        randomly.ODDS[pool.odds],
    )


def candidates(
    strategy: Strategy, pool: Pool, number: int, rng: np.random.Generator, scorer: Scorer, beta: float
) -> dict[int, list[Unit]]:
    """The best units of each scan by class, 0 for all classes together; those of one class do not overlap."""
    found: dict[int, list[Unit]] = {}
    most = number * (CANDIDATES if strategy.choice in ("variety", "rank") else 1)
    for subject in track(pool.open_subjects(), "score"):
        shape, size = pool.shapes[subject], pool.size(subject)
        for organ, values in scorer.maps(subject, strategy.score):
            scores = np.asarray(box_mean(jnp.asarray(values), size), np.float64)
            if strategy.choice == "power" or organ:
                scores = choices.power_noise(scores, beta, rng)
            best = greedy(subject, scores, shape, size, most, pool.taken(subject), pool.overlap)
            found.setdefault(organ, []).extend(best)
    return found
