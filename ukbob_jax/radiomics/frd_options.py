"""The section `frd` of a recipe. Fields and defaults, written once."""

import dataclasses

from ukbob_jax import advice, anatomy
from ukbob_jax.errors import ConfigError
from ukbob_jax.radiomics.frd import VERSIONS
from ukbob_jax.radiomics.ood import DISTRIBUTIONS


@dataclasses.dataclass(frozen=True)
class FrdOptions:
    """Which two sets of scans are compared, and how.

    Attributes:
        other: store of the second set; empty: the same store as the reference.
        where: which subjects are the reference, such as "split=train site=1"; empty: all. Names are `subject`, `split`,
            `modality`, `person` and the technical attributes of a store (docs/store-format.md).
        other_where: which subjects are the second set.
        other_label: label set of the second set; empty: that of the reference, `config.label`.
        organ: whose voxels are measured; empty: those of all organs together.
        contrast: name of the one to measure; empty: the only one.
        other_contrast: of the second set; empty: that of the reference.
        version: "v1" or "v0".
        distribution: of scores of single scans: "gaussian", "t" or "counting".
        draws: of the bootstrap and of chance, each.
        process: which share of the subjects to measure, of
        processes: so many; the shares only measure, a run with 1 compares.
    """

    other: str = ""
    where: str = ""
    other_where: str = ""
    other_label: str = ""
    organ: str = ""
    contrast: str = ""
    other_contrast: str = ""
    version: str = "v1"
    distribution: str = "counting"
    draws: int = 200
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (("version", VERSIONS), ("distribution", DISTRIBUTIONS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{advice.setting(name)}={getattr(self, name)!r}: choose one of {', '.join(allowed)}."
                )
        if self.organ and self.organ not in anatomy.IDS:
            raise ConfigError(
                f"{advice.setting('organ')}={self.organ!r}: no such structure; `ukbob labels` lists them."
            )
        if self.draws < 1:
            raise ConfigError(f"{advice.setting('draws')}={self.draws}: give 1 or more.")
