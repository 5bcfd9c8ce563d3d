"""One label map from several of the same body, one per contrast.

All take maps `x y z` uint8 in the order of `contrasts`; where they disagree, the order decides.
"""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from ukbob_jax import anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.quality import components

KINDS = ("vote", "first", "rules")
WATER = "water"
# factor on the size limits of small components in the labeller's table, before and after merging; TotalVibeSegmentator's
FACTOR_EACH, FACTOR_MERGED = 5.0, 15.0


@dataclasses.dataclass(frozen=True)
class Merge:
    """How the maps of one scan's contrasts become one.

    Attributes:
        kind: one of `KINDS`.
        water_only: of "rules", ids that water alone decides.
    """

    kind: str
    water_only: tuple[int, ...] = ()

    @classmethod
    def parse(cls, kind: str, water_only: Sequence[str], contrasts: Sequence[str]) -> "Merge":
        """Read a merge.

        Args:
            kind: as above.
            water_only: names in `anatomy`.
            contrasts: those that are to be merged.
        Raises:
            ConfigError: no such kind or structure, or "rules" without water.
        """
        if kind not in KINDS:
            raise ConfigError(f"labeller.merge={kind!r}: choose one of {', '.join(KINDS)}.")
        if kind == "rules" and len(contrasts) > 1:
            check_contrasts(contrasts)
        if unknown := [name for name in water_only if name not in anatomy.IDS]:
            raise ConfigError(f"labeller.water_only: {unknown[0]!r} is not a structure.")
        return cls(kind, tuple(anatomy.IDS[name] for name in water_only))

    def __call__(
        self, maps: Sequence[np.ndarray], contrasts: Sequence[str], sex: str | None = None
    ) -> np.ndarray:
        """One map of maps `x y z` uint8 with our ids, one per contrast; of one map itself."""
        if len(maps) == 1:
            return maps[0]
        if self.kind == "rules":
            return rules(maps, contrasts, self.water_only, sex)
        return vote(maps) if self.kind == "vote" else first(maps)


def vote(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Majority vote; of labels with as many votes, the one of the first map."""
    votes = np.stack([np.sum([other == own for other in maps], 0, np.uint8) for own in maps])  # c x y z
    return np.take_along_axis(np.stack(maps), votes.argmax(0)[None], 0)[0]


def first(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Take the first map's label, and where it has background the next one's."""
    merged = maps[0].copy()
    for other in maps[1:]:
        np.copyto(merged, other, where=merged == 0)
    return merged


def check_contrasts(contrasts: Collection[str]) -> None:
    """Refuse contrasts that `rules` cannot merge.

    Raises:
        ConfigError: there is no water.
    """
    if WATER not in contrasts:
        raise ConfigError(f"merge='rules' needs the contrast {WATER!r}; there are {', '.join(contrasts)}.")


def rules(
    maps: Sequence[np.ndarray],
    contrasts: Sequence[str],
    water_only: Collection[int],
    sex: str | None = None,
) -> np.ndarray:
    """Merge as TotalVibeSegmentator does: some classes from the water image alone, the others as in `first`.

    Small components are removed from each map and, up to a larger size, from the merged one. A woman has no prostate.

    Args:
        maps: one per contrast.
        contrasts: name of each map's contrast; one of them is "water".
        water_only: ids that other contrasts do not decide.
        sex: "F", "M" or None where it is not known.
    Raises:
        ConfigError: there is no water map.
    """
    check_contrasts(contrasts)
    without_water_only = np.arange(256, dtype=np.uint8)
    without_water_only[list(water_only)] = 0
    cleaned = [components.clean(labels, factor=FACTOR_EACH) for labels in maps]
    merged = first([m if name == WATER else without_water_only[m] for m, name in zip(cleaned, contrasts)])
    if sex == "F":
        merged[np.isin(merged, anatomy.MALE_ONLY)] = 0
    return components.clean(merged, factor=FACTOR_MERGED)
