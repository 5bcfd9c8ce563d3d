"""The section `radiomics` of a recipe and the options of `ukbob radiomics`. Fields and defaults, written once."""

import dataclasses
from typing import Any

from ukbob_jax import advice
from ukbob_jax.errors import ConfigError, ValuesError
from ukbob_jax.radiomics.features import ALL, check_options


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
        options = {name: value for name, value in self.arguments().items() if name != "resample_mm"}
        try:
            check_options(**options)
        except ValuesError as error:
            name, told = str(error).split("=", 1)
            raise ConfigError(f"{advice.setting(name)}={told}") from error
        if not 0 <= self.resample_mm < float("inf"):
            told = f"{advice.setting('resample_mm')}={self.resample_mm}"
            raise ConfigError(f"{told}: give a spacing in mm, or 0 for the image's own.")

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `radiomics.features`."""
        left_out = ("contrast", "process", "processes")
        found = {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}
        for name in ("bin_count", "normalise_scale", "resample_mm"):
            found[name] = found[name] or None
        return found
