"""The range of each measure of each organ that a label must keep to, and how it is stored."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ukbob_jax import files
from ukbob_jax.errors import FileError
from ukbob_jax.quality.measures import FEATURES

_FORMAT = "ukbob-limits"


class Limits(NamedTuple):
    """Inclusive ranges, (groups, num_classes, 3 features); infinite where too few organs were seen to judge by.

    The features are body fraction, sphericity and eccentricity, as in `FEATURES`.
    """

    low: np.ndarray
    high: np.ndarray
    count: np.ndarray  # (groups, num_classes): organs the range was fitted on
    groups: tuple[str, ...]  # strata, such as "F" and "M"; one unnamed group without strata
    rule: dict[str, Any]  # how it was fitted: name and parameters
    provenance: dict[str, Any]  # versions that fitted it, and whatever tells where the organs came from

    def with_groups(self, groups: Sequence[str]) -> "Limits":
        """The same limits, with infinite ones for those of `groups` that they lack: whoever is in these is not judged."""
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
    """`limits` as JSON values."""
    ends = {name: _nullable(getattr(limits, name)) for name in ("low", "high")}
    return {
        "format": _FORMAT,
        "features": list(FEATURES),
        "groups": list(limits.groups),
        "rule": limits.rule,
        "provenance": limits.provenance,
        "count": limits.count.tolist(),
        **ends,
    }


def from_json(value: Any, where: str) -> Limits:
    """Limits from what `to_json` made; `where` begins the message of the FileError for anything else."""
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
            f"{where}: not a file of SOLF limits ({error}). Fit it again with --config.job=solf."
        ) from error


def _nullable(ends: np.ndarray) -> list:
    return np.where(np.isfinite(ends), ends, None).tolist()
