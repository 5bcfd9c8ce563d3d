"""Choices with chance or variety in them, from candidates with a score; and how much chance, round by round."""

from collections.abc import Mapping, Sequence

import numpy as np

from ukbob_jax.active.patches import Unit, best_of_all, overlap
from ukbob_jax.errors import ValuesError

SMALLEST = 1e-12  # score whose logarithm stands for that of 0
CLASS_SHARE = 0.66  # of a query that is divided among the classes (ClaSP)


def power_noise(scores: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
    """log score + Gumbel(0, 1/beta): taking the best draws in proportion to score**beta (Kirsch et al. 2023)."""
    scores = np.asarray(scores, np.float64)
    return np.log(np.maximum(scores, SMALLEST)) + rng.gumbel(0, 1 / beta, scores.shape)


def soft_rank(scores: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
    """-log rank + Gumbel(0, 1/beta), the best of rank 1: chance that depends on the order alone (Kirsch et al. 2023)."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(-np.asarray(scores), kind="stable")] = np.arange(1, len(scores) + 1)
    return -np.log(ranks) + rng.gumbel(0, 1 / beta, len(scores))


def rising_beta(number: int, rounds: int, first: float = 1.0, last: float = 100.0) -> float:
    """`beta` of round `number` of `rounds`, from 0: grows by the same factor each round, so that chance fades."""
    if rounds < 2:
        return first
    return float(first * (last / first) ** (number / (rounds - 1)))


def kmeans_plus_plus(features: np.ndarray, number: int, rng: np.random.Generator) -> list[int]:
    """Choose rows far apart: each with a chance in proportion to its squared distance from the nearest chosen one.

    The seeding of k-means++ (Arthur and Vassilvitskii 2007). Once all that is left equals
    what is chosen, rows come in order.

    Args:
        features: `n d`.
        number: of rows, all different; at most n are given.
        rng: of the draws.
    Raises:
        ValuesError: a feature is NaN or infinite.
    """
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise ValuesError("k-means++: features with NaN or infinity; look at the network's training.")
    left = np.ones(len(features), bool)
    distance = np.ones(len(features))
    chosen: list[int] = []
    while len(chosen) < min(number, len(features)):
        weight = np.where(left, distance, 0)
        total = weight.sum()
        row = int(rng.choice(len(features), p=weight / total)) if total > 0 else int(np.argmax(left))
        chosen.append(row)
        left[row] = False
        apart = ((features - features[row]) ** 2).sum(1)
        distance = apart if len(chosen) == 1 else np.minimum(distance, apart)
    return chosen


def by_class(
    of_classes: Mapping[int, Sequence[Unit]], rest: Sequence[Unit], number: int, share: float = CLASS_SHARE
) -> list[Unit]:
    """Divide a share of the query evenly among classes, and fill it up by the plain score (ClaSP).

    Args:
        of_classes: class -> candidates of all scans with that class's score.
        rest: candidates with the plain score.
        number: of units.
        share: of them that classes choose.
    """
    chosen: list[Unit] = []
    turns = round(share * number)
    queues = {organ: iter(best_of_all(units, len(units))) for organ, units in sorted(of_classes.items())}
    while len(chosen) < turns and queues:
        for organ in list(queues):
            if len(chosen) == turns:
                break
            unit = next((u for u in queues[organ] if not overlap(u, chosen)), None)
            if unit is None:
                del queues[organ]
            else:
                chosen.append(unit)
    for unit in best_of_all(rest, len(rest)):
        if len(chosen) >= number:
            break
        if not overlap(unit, chosen):
            chosen.append(unit)
    return chosen
