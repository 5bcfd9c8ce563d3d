"""Paired comparisons of methods: sizes of effects, and p values of many comparisons at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from ukbob_jax.errors import ConfigError
from ukbob_jax.evaluation import statistics
from ukbob_jax.files import json_number

Scores = Mapping[str, float | None]  # by subject


class Effect(NamedTuple):
    """How large a paired difference is, second minus first, in units of its own spread; NaN where undefined."""

    d: float  # Cohen's d_z: mean difference over its sample standard deviation
    hedges_g: float  # d times 1 - 3 / (4 (n - 1) - 1), less biased for few scans (Hedges 1981)
    rank_biserial: float  # (R+ - R-) / (R+ + R-) of Wilcoxon's rank sums, -1 to 1 (Kerby 2014)
    wilcoxon_p: float  # two-sided, of the signed ranks


def effect(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> Effect:
    """Return the size of the difference of two methods on the same scans, with Wilcoxon's test.

    A difference that is the same on all scans has no spread: d and g are infinite with its sign, or 0 where it is 0.

    Args:
        first: `n` scores; scans in which either is NaN are left out.
        second: `n` scores of the same scans.
    """
    change = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    change = change[np.isfinite(change)].round(12)  # scores that differ by rounding only are tied
    n = change.size
    if n < 2:
        return Effect(*(float("nan"),) * 4)
    mean, spread = float(change.mean()), float(change.std(ddof=1))
    without_spread = float(np.sign(mean)) * np.inf if mean else 0.0
    d = mean / spread if spread > 1e-12 else without_spread
    g = d * (1 - 3 / (4 * (n - 1) - 1)) if n > 2 else float("nan")  # two scans: the factor is 0, whatever d
    moved = change[change != 0]
    if not moved.size:
        return Effect(d, g, 0.0, 1.0)
    ranks = stats.rankdata(np.abs(moved))
    biserial = float((ranks * np.sign(moved)).sum() / ranks.sum())
    p = float(stats.wilcoxon(moved, method="auto").pvalue)  # pyright: ignore[reportAttributeAccessIssue]
    return Effect(d, g, biserial, p)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p values of one family (Holm 1979): the smallest times n, the next times n - 1, ..., never falling.

    The chance of any false finding in the family stays below the level.
    """
    adjusted, highest = [1.0] * len(p), 0.0
    for place, i in enumerate(np.argsort(p, kind="stable").tolist()):
        highest = max(highest, min(1.0, p[i] * (len(p) - place)))
        adjusted[i] = highest
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjust the p values of one family (Benjamini and Hochberg 1995): the share of false findings stays below the level."""
    return stats.false_discovery_control(np.asarray(p, np.float64), method="bh").tolist() if len(p) else []


CORRECTIONS: dict[str, Callable[[Sequence[float]], list[float]]] = {"holm": holm, "bh": benjamini_hochberg}


def corrected(p: Sequence[float | None], correction: str) -> list[float | None]:
    """Adjust a family of p values; those that are None or NaN are no members of it and stay None.

    Raises:
        ConfigError: another correction than "holm" and "bh".
    """
    if correction not in CORRECTIONS:
        raise ConfigError(f"correction {correction!r}: expected one of {', '.join(CORRECTIONS)}.")
    members = [i for i, value in enumerate(p) if value is not None and value == value]
    found: list[float | None] = [None] * len(p)
    for i, value in zip(members, CORRECTIONS[correction]([float(p[i] or 0.0) for i in members])):
        found[i] = value
    return found


def difference(first: Scores, second: Scores, seed: int = 0) -> dict[str, Any]:
    """Compare two methods on the subjects that both have: JSON values, the fields of `Paired` and of `Effect`.

    One scan has a difference and no p.
    """
    subjects = [subject for subject in first if subject in second]
    a, b = ([_number(of[s]) for s in subjects] for of in (first, second))
    found = statistics.paired(a, b, seed=seed)._asdict() | effect(a, b)._asdict()
    if found["count"] < 2:
        found["p"] = float("nan")
    return {name: value if name == "count" else json_number(value) for name, value in found.items()}


def differences(
    first: Mapping[str, Scores], second: Mapping[str, Scores], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compare two methods organ by organ; the organs that both have are one family of comparisons.

    Args:
        first, second: organ -> subject -> score, None where undefined.
        seed: of the resampling.
    Returns:
        organ -> `difference`, with "p_holm" and "p_bh", its p corrected for the number of organs.
    """
    rows = {name: difference(first[name], second[name], seed) for name in first if name in second}
    for correction in CORRECTIONS:
        adjusted = corrected([row["p"] for row in rows.values()], correction)
        for row, p in zip(rows.values(), adjusted):
            row[f"p_{correction}"] = p
    return rows


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
