"""How strange a label is beside its organ's other labels: an order in which to look at them, and a typical one."""

import numpy as np

from ukbob_jax.quality.measures import OrganMeasures
from ukbob_jax.quality.solf import LEAST_SPREAD, MAD_TO_SIGMA, features, to_scale

MOST = 20.0  # deviations; beyond it, and for an undefined measure, strange is strange


def deviations(measures: OrganMeasures) -> np.ndarray:
    """Distance of every measure from its class's median, in robust standard deviations: (n, num_classes, 3 features).

    Signed, on the scales of `fit_robust` (the sign of eccentricity is turned: positive is rounder), at most `MOST`;
    NaN where the organ is absent.

    Args:
        measures: fields (n, num_classes).
    """
    present = (np.asarray(measures.voxels) > 0)[..., None]
    values = features(measures)
    scaled = np.where(present & np.isfinite(values), to_scale(values), np.nan)
    scaled = np.where(np.isfinite(scaled), scaled, np.nan)
    middle = _median(scaled)
    spread = np.maximum(MAD_TO_SIGMA * _median(np.abs(scaled - middle)), LEAST_SPREAD)
    found = np.clip((scaled - middle) / spread, -MOST, MOST)
    return np.where(present, np.where(np.isnan(found), MOST, found), np.nan)


def strangeness(measures: OrganMeasures) -> np.ndarray:
    """The second largest of the three absolute deviations, (n, num_classes): two of three must be odd; 0 if absent."""
    return np.sort(np.nan_to_num(np.abs(deviations(measures)), nan=0.0), -1)[..., 1]


def typical(measures: OrganMeasures, flagged: np.ndarray) -> np.ndarray:
    """The subject whose label is nearest its organ's medians and holds, (num_classes,); -1 where there is none."""
    distance = np.linalg.norm(deviations(measures), axis=-1)  # NaN where absent
    distance = np.where(flagged | np.isnan(distance), np.inf, distance)
    return np.where(np.isfinite(distance).any(0), distance.argmin(0), -1)


def _median(values: np.ndarray) -> np.ndarray:
    """Along the subjects, NaN left out; 0 where there is nothing."""
    return np.ma.filled(np.ma.median(np.ma.masked_invalid(values), axis=0), 0.0)
