"""The guard of adaptation by grades: a network that looks at image and labels says whether the labels got worse.

Entropy falls where a network grows surer, right or wrong. A grader predicts the Dice of every organ's label from the
image (Quality Sentinel), so it can refuse a result whose entropy fell.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ukbob_jax.anatomy import IGNORE
from ukbob_jax.errors import ConfigError


class Grader(Protocol):
    """What can grade labels; `sentinel.trained` loads one from a workdir."""

    def grade(self, image: Any, labels: Any, spacing_mm: Sequence[float]) -> Any:
        """Say of labels `x y z` on an image `x y z`: `.dice` `k`, predicted Dice by class id; NaN where not asked."""
        ...


class MeanGrades(NamedTuple):
    """Mean grade over organs, before and after adaptation; NaN where no organ could be graded."""

    before: float
    after: float

    @property
    def fell(self) -> bool:
        """Whether the labels got worse. Where nothing was graded before, they could not."""
        return np.isfinite(self.before) and not self.after >= self.before


def open_grader(given: Any) -> Grader:
    """The grader of a workdir; anything with a method `grade` is taken as it is.

    Raises:
        FileError: there is no grader in that workdir.
        ConfigError: it is neither a workdir nor a grader.
    """
    if isinstance(given, str | os.PathLike):
        return _loaded(os.fspath(given))
    if not callable(getattr(given, "grade", None)):
        raise ConfigError(
            f"etta: grader {given!r} has no method grade. Give the workdir of a trained grader."
        )
    return given


def mean_grades(
    grader: Grader, image: np.ndarray, labels: tuple[np.ndarray, np.ndarray], spacing_mm: Sequence[float]
) -> MeanGrades:
    """Grade the labels before and after adaptation.

    The mean before is over the organs found before, that after over those found before or after: an organ that got
    lost counts 0, and one that was added must be better than the mean to raise it.

    Args:
        grader: of the labels' classes.
        image: `x y z`, intensities as they are stored.
        labels: `x y z` each, before and after.
        spacing_mm: of a voxel.
    """
    dice = [np.asarray(grader.grade(image, one, spacing_mm).dice, np.float64) for one in labels]
    first, second = ({int(i) for i in np.unique(one)} - {0, IGNORE} for one in labels)
    before = [dice[0][organ] for organ in sorted(first)]
    graded = {organ for organ, value in zip(sorted(first), before) if np.isfinite(value)}
    kept = [dice[1][organ] if organ in second else 0.0 for organ in sorted(graded | (second - first))]
    return MeanGrades(_mean(before), _mean(kept))


def channel_of(grader: Grader, contrasts: Sequence[str]) -> int:
    """The channel that a grader is shown, of a scan with these contrasts: that of its training, or the only one.

    Raises:
        ConfigError: it is not among several.
    """
    wanted = str(getattr(grader, "contrast", "") or "")
    if wanted in contrasts:
        return list(contrasts).index(wanted)
    if len(contrasts) > 1:
        said = f"was trained on {wanted!r}" if wanted else "does not say on which contrast it was trained"
        raise ConfigError(
            f"etta: the grader {said}, and the network takes {', '.join(contrasts)}. Take guard 'entropy', or "
            "another grader."
        )
    return 0


def comparison(
    grader: Grader,
    image: np.ndarray,
    spacing_mm: Sequence[float],
    contrasts: Sequence[str],
    segment: Callable[[Mapping[str, Any]], np.ndarray],
    source: Mapping[str, Any],
) -> Callable[[Mapping[str, Any]], MeanGrades]:
    """Return parameters -> mean grades with the source's parameters and with these.

    Args:
        grader: of the network's classes.
        image: `x y z c`, intensities as they are stored.
        spacing_mm: of a voxel.
        contrasts: c of them.
        segment: parameters -> labels `x y z`.
        source: parameters of the training.
    Raises:
        ConfigError: (at once) the grader was trained on none of the contrasts.
    """
    shown = image[..., channel_of(grader, contrasts)]

    def compare(params: Mapping[str, Any]) -> MeanGrades:
        return mean_grades(grader, shown, (segment(source), segment(params)), spacing_mm)

    return compare


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


@functools.lru_cache(maxsize=2)
def _loaded(workdir: str) -> Grader:
    from ukbob_jax.sentinel import trained  # networks that only who asks for grades needs

    return trained.load(workdir)
