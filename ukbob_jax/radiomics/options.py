"""The section `radiomics` of a recipe and the options of `ukbob radiomics`. Fields and defaults, written once."""

import dataclasses
from typing import Any

from ukbob_jax.errors import ConfigError
from ukbob_jax.radiomics.directions import WEIGHTINGS
from ukbob_jax.radiomics.discretisation import DEFINITIONS
from ukbob_jax.radiomics.features import ALL


@dataclasses.dataclass(frozen=True)
class RadiomicsOptions:
    """How radiomic features are computed; all but the last three as for `radiomics.features`.

    Attributes:
        families: of features.
        bin_width: of grey levels, in the image's unit.
        bin_count: number of grey levels instead; 0: by width.
        definition: "pyradiomics" or "ibsi".
        normalise_scale: standard deviation that the whole image is brought to first, with mean 0; 0: as it is.
        voxel_shift: added to intensities in the energies.
        distances: of neighbours, voxels.
        alpha: difference of levels that still depend on each other.
        weighting: of directions, by a norm.
        merge: the matrices of all directions into one.
        resample_mm: spacing to resample to; 0: the image's own grid.
        contrast: name of the one to measure; empty: the only one.
        process: which share of the subjects to measure, of
        processes: so many; the shares only measure, a run with 1 writes the table.
    """

    families: tuple[str, ...] = ALL
    bin_width: float = 25.0
    bin_count: int = 0
    definition: str = "pyradiomics"
    normalise_scale: float = 0.0
    voxel_shift: float = 0.0
    distances: tuple[int, ...] = (1,)
    alpha: int = 0
    weighting: str = ""
    merge: bool = False
    resample_mm: float = 0.0
    contrast: str = ""
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        unknown = [family for family in self.families if family not in ALL]
        if unknown or not self.families:
            raise ConfigError(f"radiomics.families={tuple(self.families)}: choose some of {', '.join(ALL)}.")
        for name, choices in (("definition", DEFINITIONS), ("weighting", WEIGHTINGS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"radiomics.{name}={getattr(self, name)!r}: choose one of {choices}.")
        if not self.bin_width > 0 or self.bin_count < 0 or self.resample_mm < 0:
            raise ConfigError(
                f"radiomics.bin_width={self.bin_width}, bin_count={self.bin_count}, resample_mm={self.resample_mm}: a "
                "width is positive, the others 0 or more."
            )

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `radiomics.features`."""
        left_out = ("contrast", "process", "processes")
        found = {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}
        for name in ("bin_count", "normalise_scale", "resample_mm"):
            found[name] = found[name] or None
        return found
