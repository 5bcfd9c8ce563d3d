"""Out-of-distribution scores of single images, in radiomic features (Konz et al. 2024).

    test = Detector.fit(reference, distribution="counting")       # table n f
    test.scores(images), test.threshold, test.p_values(images)

A score is the distance of an image to the reference's mean; the threshold is the 95th percentile of the reference's own
scores, by a normal or t distribution fitted to them or by counting.
"""

import dataclasses

import numpy as np
import scipy.stats

from ukbob_jax.errors import ConfigError, MismatchError, ValuesError
from ukbob_jax.radiomics import normalise
from ukbob_jax.radiomics.frechet import as_table

DISTRIBUTIONS = ("gaussian", "t", "counting")
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Detector:
    """What a reference set says of new images; `features` (f,) bool are the columns that are used."""

    mean: np.ndarray
    spread: np.ndarray
    features: np.ndarray
    reference_scores: np.ndarray
    distribution: str
    form: str

    @classmethod
    def fit(
        cls,
        reference: np.ndarray,
        *,
        distribution: str = "counting",
        scaled: bool = True,
        form: str = "corrected",
    ) -> "Detector":
        """Measure a reference set (n, f).

        Args:
            distribution: of the scores: "gaussian", "t" or "counting".
            scaled: z-score features by the reference first, so that none dominates by its unit; the released function
                leaves that to its caller.
            form: "released" divides the deviation by the root of n in p-values of t, though not in its threshold.

        Raises:
            ConfigError: an option that is none.
            ValuesError: fewer than two images, values that are not finite, or no feature that varies.
        """
        if distribution not in DISTRIBUTIONS:
            raise ConfigError(f"distribution={distribution!r}: choose one of {', '.join(DISTRIBUTIONS)}.")
        if form not in ("corrected", "released"):
            raise ConfigError(f"form={form!r}: choose one of corrected, released.")
        reference = as_table(reference, "reference table")
        if reference.ndim != 2 or len(reference) < 2:
            raise ValuesError(
                f"a reference table of shape {reference.shape}: need two images or more, features along n f."
            )
        if not np.isfinite(reference).all():
            raise ValuesError(
                "the reference table has values that are not finite. Leave their rows or columns out."
            )
        features = ~normalise.constant(reference) if scaled else np.ones(reference.shape[1], bool)
        if not features.any():
            raise ValuesError("no feature varies among the reference images. Look at the table of features.")
        used = reference[:, features]
        mean, spread = used.mean(0), used.std(0) if scaled else np.ones(used.shape[1])
        own = np.linalg.norm((used - mean) / spread, axis=1)
        return cls(mean, spread, features, own, distribution, form)

    @property
    def threshold(self) -> float:
        """Scores above it are of images unlike the reference: the 95th percentile of its scores."""
        own = self.reference_scores
        if self.distribution == "counting":
            return float(np.percentile(own, 100 * _LEVEL))
        return float(self._quantile(_LEVEL) * own.std() + own.mean())

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Distance (m,) of images (m, f) to the reference's mean; NaN where a feature used is not finite."""
        images = as_table(images, "table of images")
        if images.ndim != 2 or images.shape[1] != len(self.features):
            raise MismatchError(
                f"images of shape {images.shape}, a reference of {len(self.features)} features: need the same columns."
            )
        return np.linalg.norm((images[:, self.features] - self.mean) / self.spread, axis=1)

    def outside(self, images: np.ndarray) -> np.ndarray:
        """Which images (m,) lie beyond the threshold; a score that is NaN does."""
        return ~(self.scores(images) <= self.threshold)

    def p_values(self, images: np.ndarray) -> np.ndarray:
        """Probability (m,) of a reference image with such a score or a greater one; NaN where the score is."""
        own, found = self.reference_scores, self.scores(images)
        if self.distribution == "counting":
            return np.where(np.isnan(found), np.nan, (own[None] > found[:, None]).mean(1))
        spread = max(own.std(), 1e-12 * own.mean(), 1e-150)  # scores of two images are equal
        if self.distribution == "t":
            if self.form == "released":
                spread = spread / np.sqrt(len(own))
            return scipy.stats.t.sf((found - own.mean()) / spread, len(own) - 1)
        return scipy.stats.norm.sf((found - own.mean()) / spread)

    def _quantile(self, level: float) -> float:
        if self.distribution == "gaussian":
            return float(scipy.stats.norm.ppf(level))
        return float(scipy.stats.t.ppf(level, len(self.reference_scores) - 1))


def nfrd(reference: np.ndarray, other: np.ndarray, *, scaled: bool = True) -> float:
    """How well scores tell two sets apart: 2 |AUC - 1/2|, 0 (not at all) to 1; tables (n, f) and (m, f)."""
    test = Detector.fit(reference, scaled=scaled)
    own, found = test.reference_scores, test.scores(other)
    if not len(found) or np.isnan(found).any():
        raise ValuesError("the other table is empty or has values that are not finite. Leave their rows out.")
    ranks = scipy.stats.rankdata(np.concatenate([own, found]))[len(own) :]
    area = (ranks.sum() - len(found) * (len(found) + 1) / 2) / (len(own) * len(found))
    return float(2 * abs(area - 0.5))
