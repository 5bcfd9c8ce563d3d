"""The range that each measure of each organ must keep to, and how it is stored."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import FileError, MismatchError
from ukbob_jax.quality import strata
from ukbob_jax.quality.measures import FEATURES

MIN_OUTSIDE = 2  # of the three measures out of range make a label one not to trust; the paper's rule
_FORMAT = "ukbob-limits"


class Limits(NamedTuple):
    """Inclusive ranges, (groups, num_classes, 3 features); infinite where too few organs were seen to judge by.

    The features are body fraction, sphericity and eccentricity, as in `FEATURES`.
    """

    low: np.ndarray
    high: np.ndarray
    # (groups, num_classes): organs the range was fitted on
    count: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    groups: tuple[str, ...]  # strata, such as "F" and "M"; one unnamed group without strata
    rule: dict[str, Any]  # how it was fitted: name and parameters
    provenance: dict[str, Any]  # versions that fitted it, and whatever tells where the organs came from

    @property
    def min_outside(self) -> int:
        """Return how many of the three measures must be out of range."""
        return int(self.rule.get("min_outside", MIN_OUTSIDE))

    def groups_of(
        self, people: Sequence[Mapping[str, Any]], height_band_mm: float | None = None
    ) -> list[str] | None:
        """Name the group of every person; None for limits without groups.

        Args:
            people: attributes, which may have "sex" and "height_mm".
            height_band_mm: width of a height group where the limits do not say.
        Raises:
            MismatchError: the limits have height groups, and nobody says how wide.
        """
        by = self.rule.get("strata", ())
        if not by:
            return None
        band = self.rule.get("height_band_mm", height_band_mm)
        if band is None and "height" in by:
            raise MismatchError(
                "the limits have groups by height but do not say how wide these are. Fit them again with the solf job."
            )
        return strata.names(people, by, 1.0 if band is None else band)  # groups by sex alone have no width

    def with_groups(self, groups: Sequence[str]) -> "Limits":
        """Add infinite limits for those of `groups` that are missing: whoever is in these is not judged."""
        new = sorted(set(groups) - set(self.groups))
        more = (len(new), *self.low.shape[1:])
        return self._replace(
            low=np.concatenate([self.low, np.full(more, -np.inf)]),
            high=np.concatenate([self.high, np.full(more, np.inf)]),
            count=np.concatenate([self.count, np.zeros(more[:2], self.count.dtype)]),
            groups=(*self.groups, *new),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the limits as JSON, enough to judge one new scan without the cohort; infinite ends become null.

        Raises:
            FileError: the file cannot be written.
        """
        files.write_json(path, to_json(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Limits":
        """Read what `save` wrote.

        Raises:
            FileError: the file is missing or is not such a file.
        """
        return from_json(files.read_json(path), os.fspath(path))


def to_json(limits: Limits) -> dict[str, Any]:
    """Return `limits` as JSON values."""
    bounds = {name: _nullable(getattr(limits, name)) for name in ("low", "high")}
    return {
        "format": _FORMAT,
        "features": list(FEATURES),
        "groups": list(limits.groups),
        "rule": limits.rule,
        "provenance": limits.provenance,
        "count": limits.count.tolist(),
        **bounds,
    }


def from_json(value: Any, where: str) -> Limits:
    """Read what `to_json` made; `where` begins the message of the FileError for anything else."""
    try:
        if value["format"] != _FORMAT or value["features"] != list(FEATURES):
            raise ValueError(f"format {value['format']!r}, features {value['features']}")
        low, high = (np.array(value[name], dtype=np.float64) for name in ("low", "high"))
        count = np.array(value["count"], dtype=np.int64)
        groups = tuple(value["groups"])
        if low.shape != (len(groups), count.shape[1], 3) or high.shape != low.shape:
            raise ValueError(f"low {low.shape} and high {high.shape} for {len(groups)} groups")
        low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
        return Limits(low, high, count, groups, value["rule"], value["provenance"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FileError(
            f"{where}: not a file of SOLF limits ({error}). Fit it again with the solf job."
        ) from error


def _nullable(bounds: np.ndarray) -> list[Any]:
    return np.where(np.isfinite(bounds), bounds.astype(object), np.array(None, object)).tolist()
