"""How far a label lies from its organ's other labels: an order in which to look at them, and a representative one."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax.quality.measures import FEATURES, OrganMeasures
from ukbob_jax.quality.solf import features, middle_and_spread, to_log_scale

MAX_DEVIATIONS = 20.0  # robust standard deviations; measures beyond it, and undefined ones, count as this far


class Ranking(NamedTuple):
    """The order in which flagged labels are looked at, and with what each is compared."""

    rows: list[dict[str, Any]]  # flagged or decided about, farthest first
    scores: list[float]  # `outlier_score` of each of these
    # by organ: the row nearest its medians; organs whose labels are all flagged have none
    representative: dict[int, dict[str, Any]]


def rank(
    rows: Sequence[dict[str, Any]],
    also: Collection[tuple[str, int]] = (),
    distrusted: Collection[tuple[str, int]] = (),
) -> Ranking:
    """Order the labels that SOLF flagged or a person decided about by `outlier_score`, ties by subject and organ.

    Every page that shows flagged labels takes its order and its representative labels from here. The representative
    label of an organ is the one nearest its medians (Euclidean distance of the three z-scores) that is not flagged.

    Args:
        rows: verdicts, as `verdicts.rows` gives them, of the whole cohort. Their number sets time and memory, linearly.
        also: (subject, organ) of other labels to list.
        distrusted: (subject, organ) of labels that others flagged: they represent no organ.
    """
    index = {subject: i for i, subject in enumerate(dict.fromkeys(row["subject"] for row in rows))}
    if not index:
        return Ranking([], [], {})
    subject = np.array([index[row["subject"]] for row in rows])
    organ = np.array([row["organ"] for row in rows])
    flagged = np.array([row["flagged"] for row in rows], bool)
    values = np.full((len(index), organ.max() + 1, len(FEATURES)), np.nan)
    present = np.zeros(values.shape[:2], bool)
    values[subject, organ] = [[row[name] for name in FEATURES] for row in rows]  # null becomes NaN
    present[subject, organ] = True
    away = _z_scores(values, present)[subject, organ]  # rows 3
    scores = _second_largest(away)
    also, distrusted = frozenset(also), frozenset(distrusted)
    shown = [
        i
        for i, row in enumerate(rows)
        if flagged[i] or "decision" in row or (row["subject"], row["organ"]) in also
    ]
    shown.sort(key=lambda i: (-scores[i], rows[i]["subject"], organ[i]))
    distance = np.linalg.norm(away, axis=-1)
    representative: dict[int, dict[str, Any]] = {}
    for i in np.lexsort((subject, distance)):  # nearest first
        if not flagged[i] and (rows[i]["subject"], rows[i]["organ"]) not in distrusted:
            representative.setdefault(int(organ[i]), rows[i])
    return Ranking([rows[i] for i in shown], [float(scores[i]) for i in shown], representative)


def robust_z_scores(measures: OrganMeasures) -> np.ndarray:
    """Measure how far every measure is from its class's median, in robust standard deviations.

    Signed, on the scales of `fit_robust` (the sign of eccentricity is turned: positive is rounder), at most
    `MAX_DEVIATIONS`; NaN where the organ is absent.

    Args:
        measures: fields (n, num_classes).
    Returns:
        (n, num_classes, 3 features).
    """
    return _z_scores(features(measures), np.asarray(measures.voxels) > 0)


def outlier_score(measures: OrganMeasures) -> np.ndarray:
    """Return the second largest of the three absolute z-scores, (n, num_classes): two must be odd; 0 if absent."""
    return _second_largest(robust_z_scores(measures))


def _z_scores(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Compute `robust_z_scores` of features (n, num_classes, 3); `present` is bool (n, num_classes)."""
    present = present[..., None]
    scaled = np.where(present & np.isfinite(values), to_log_scale(values), np.nan)
    scaled = np.where(np.isfinite(scaled), scaled, np.nan)
    middle, spread = middle_and_spread(scaled)
    found = np.clip((scaled - middle) / spread, -MAX_DEVIATIONS, MAX_DEVIATIONS)
    return np.where(present, np.where(np.isnan(found), MAX_DEVIATIONS, found), np.nan)


def _second_largest(away: np.ndarray) -> np.ndarray:
    """Take the second largest of three z-scores by size, along the last axis; NaN counts as 0."""
    return np.sort(np.nan_to_num(np.abs(away), nan=0.0), -1)[..., 1]
