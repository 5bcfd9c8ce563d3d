"""How well predicted Dice agrees with the true one, and a detector with what needs repair."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ukbob_jax.errors import MismatchError


def pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pearson's r; NaN of fewer than three numbers, or where one side does not vary."""
    if len(predicted) < 3 or np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return float("nan")
    return float(np.corrcoef(np.asarray(predicted, np.float64), np.asarray(true, np.float64))[0, 1])


def roc_area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has the higher score, ties half; NaN without one of either kind."""
    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def precision_at_recall(scores: np.ndarray, positive: np.ndarray, recall: float) -> float:
    """Share of positives among those with the highest scores, as few as hold `recall` of all positives; ties all count.

    NaN without positives.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    if not positive.any():
        return float("nan")
    found = np.sort(scores[positive])[::-1]
    limit = found[max(int(np.ceil(recall * len(found))), 1) - 1]
    return float(positive[scores >= limit].mean())


def numbers(
    predicted: np.ndarray,
    repair: np.ndarray,
    true: np.ndarray,
    organ: np.ndarray,
    kind: Sequence[str],
    *,
    unseen: Sequence[int] = (),
    threshold: float = 0.5,
    recall: float = 0.9,
) -> dict[str, float]:
    """What an evaluation tells, by name, of m masks.

    Args:
        predicted: m, Dice.
        repair: m, scores of the detector; NaN for a grader without, whose 1 - Dice is taken.
        true: m.
        organ: m, classes.
        kind: m, of error.
        unseen: classes that were never trained on; the others make "r", "mae" and what follows it.
        threshold: Dice under which a label needs repair.
        recall: at which the detector's precision is told.
    Returns:
        "r", "mae", "roc_area", "precision", and for each kind "r/KIND" and "mae/KIND"; with `unseen` "r_unseen" and
        "mae_unseen".
    Raises:
        MismatchError: different numbers of masks.
    """
    if len({len(predicted), len(repair), len(true), len(organ), len(kind)}) != 1:
        raise MismatchError(f"scores: {len(predicted)} predictions for {len(true)} masks; give one each.")
    seen = ~np.isin(organ, list(unseen))
    kinds = np.array(kind)
    score = np.where(np.isnan(repair), 1 - predicted, repair)
    positive = true < threshold
    found = {
        "r": pearson(predicted[seen], true[seen]),
        "mae": _mae(predicted[seen], true[seen]),
        "roc_area": roc_area(score[seen], positive[seen]),
        "precision": precision_at_recall(score[seen], positive[seen], recall),
    }
    if len(unseen):
        found |= {
            "r_unseen": pearson(predicted[~seen], true[~seen]),
            "mae_unseen": _mae(predicted[~seen], true[~seen]),
        }
    for name in sorted(set(kinds[seen].tolist())):
        of = seen & (kinds == name)
        found |= {f"r/{name}": pearson(predicted[of], true[of]), f"mae/{name}": _mae(predicted[of], true[of])}
    return found


def _mae(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(predicted - true).mean()) if len(true) else float("nan")
