"""How sure a radiomic distance is: an interval by the bootstrap, and what chance alone gives for sets of these sizes."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ukbob_jax.errors import ConfigError, ValuesError
from ukbob_jax.radiomics.frd import compare


@dataclasses.dataclass(frozen=True)
class Certainty:
    """Of a distance.

    Attributes:
        low, high: 95 % interval of the value; NaN where resampled sets have no distance.
        by_chance: median value between two sets of the same sizes, drawn from both together.
        p: share of such draws, counting the sets as they are, with at least the value found.
        draws: of either kind.
    """

    low: float
    high: float
    by_chance: float
    p: float
    draws: int


def certainty(
    reference: np.ndarray, other: np.ndarray, *, version: str = "v1", draws: int = 200, seed: int = 0
) -> Certainty:
    """Resample images of both sets, and shuffle them between the sets.

    The interval is the basic one of log d2, twice the value less the quantiles of resampled values (Davison and Hinkley
    1997, chapter 5): a resampled set repeats images, so that its distance is too great by about as much as the one found
    already is. The interval takes that excess back, and of small sets it may lie below the value.
    The distance of small sets is above 0 also where both are of one kind; `by_chance` and `p` say how far.

    Args:
        reference, other: (n, f) and (m, f), as for `frd`.
        draws: of each kind, at least 1.

    Raises:
        ConfigError: `draws` is below 1.
        UkbobError: as for `compare`.
    """
    if draws < 1:
        raise ConfigError(f"draws={draws}: give 1 or more.")
    found = compare(reference, other, version=version)
    columns, rows = found.features, (found.reference_rows, found.other_rows)
    reference, other = (np.asarray(t)[r][:, columns] for t, r in zip((reference, other), rows))
    rng, n = np.random.default_rng(seed), len(reference)
    both = np.concatenate([reference, other])

    def resampled() -> tuple[np.ndarray, np.ndarray]:
        first, second = (t[rng.integers(0, len(t), len(t))] for t in (reference, other))
        return first, second

    def shuffled() -> tuple[np.ndarray, np.ndarray]:
        order = rng.permutation(len(both))
        return both[order[:n]], both[order[n:]]

    again, null = _values(resampled, draws, version), _values(shuffled, draws, version)
    again = again if version == "v1" else np.log(again[again > 0])
    value = found.value if version == "v1" else np.log(found.value) if found.value > 0 else -np.inf
    ends = 2 * value - np.quantile(again, [0.975, 0.025]) if len(again) else np.full(2, np.nan)
    low, high = ends if version == "v1" else np.exp(ends)
    by_chance = float(np.median(null)) if len(null) else float("nan")
    p = (1 + (null >= found.value).sum()) / (1 + len(null))
    return Certainty(float(low), float(high), by_chance, float(p), draws)


def _values(draw: Callable[[], tuple[np.ndarray, np.ndarray]], draws: int, version: str) -> np.ndarray:
    """Distances of so many draws; those without a distance, such as of one image repeated, are left out."""
    values = []
    for _ in range(draws):
        try:
            values.append(compare(*draw(), version=version).value)
        except ValuesError:
            continue
    return np.array([value for value in values if np.isfinite(value)])
