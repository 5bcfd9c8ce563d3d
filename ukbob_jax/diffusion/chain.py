"""From a diffusion series to T2-weighted image, ADC and FA: the six steps of OpenMind, each of which can be left out."""

import dataclasses
from typing import NamedTuple

import numpy as np

from ukbob_jax import advice
from ukbob_jax.diffusion import clean, motion, shells, tensor
from ukbob_jax.diffusion.gradients import Gradients
from ukbob_jax.errors import ConfigError
from ukbob_jax.volumes.volume import Volume


@dataclasses.dataclass(frozen=True)
class Steps:
    """What is done to a series, in this order.

    Attributes:
        denoise: MP-PCA.
        ringing: remove Gibbs ringing.
        motion: register all volumes to the first without weighting, rigidly.
        receive_field: divide by the field that N4 finds on the mean volume without weighting.
        brain: cut out the brain; the maps are 0 outside, and the mask is kept.
        b0_s_mm2: largest weighting, s/mm², that counts as none.
        slice_axis: of the file, across slices as the scan was taken, 0 to 2.
    Raises:
        ConfigError: a value that means nothing.
    """

    denoise: bool = True
    ringing: bool = True
    motion: bool = True
    receive_field: bool = True
    brain: bool = True
    b0_s_mm2: float = 50.0
    slice_axis: int = 2

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name, fits, expected in (
            ("b0_s_mm2", 0 <= self.b0_s_mm2 < np.inf, "0 or more s/mm²"),
            ("slice_axis", self.slice_axis in (0, 1, 2), "0, 1 or 2"),
        ):
            if not fits:
                raise ConfigError(
                    f"{advice.setting(name) or name} is {getattr(self, name)!r}; expected {expected}."
                )


class Result(NamedTuple):
    """What came of a series, on its grid.

    Attributes:
        maps: see `tensor.Maps`.
        mask: where the brain is, bool `x y z`; everywhere where it was not cut out.
        shells: mean b, s/mm², and number of volumes of each shell.
        condition: of the equations for the tensor, see `shells.condition`.
        moved_mm: largest motion of a volume that was believed.
        unaligned: number of volumes that stayed where they were since their motion could not be found.
        gradients: of the volumes that were fitted, turned with them.
    """

    maps: tensor.Maps
    mask: np.ndarray
    shells: list[tuple[float, int]]
    condition: float
    moved_mm: float
    unaligned: int
    gradients: Gradients


def run(volume: Volume, gradients: Gradients, steps: Steps, path: str) -> Result:
    """Carry out the steps.

    Args:
        volume: `x y z n`, as it lies in its file: ringing follows the axes that were measured.
        gradients: of its volumes, in the world.
        steps: what to do.
        path: of the series, for messages.
    Raises:
        ValuesError: gradients that do not determine a tensor.
        ConfigError: dipy or SimpleITK is not installed.
    """
    keep = shells.usable(gradients, steps.b0_s_mm2, path)
    gradients = Gradients(*(values[keep] for values in gradients))
    series = np.asarray(volume.array[..., keep], np.float32)
    none = shells.unweighted(gradients.b_s_mm2, steps.b0_s_mm2)
    moved = np.zeros(1)
    if steps.denoise:
        series = clean.denoise(series)
    if steps.ringing:
        series = clean.remove_ringing(series, steps.slice_axis)
    series = np.maximum(series, 0.0)  # magnitudes; splines and shifts overshoot
    if steps.motion:
        series, gradients, moved = motion.align(series, volume.affine, gradients, none)
    if steps.receive_field:
        mean = series[..., none].mean(axis=-1)
        field = clean.receive_field(mean, volume.affine, clean.foreground(mean))
        series = series / field[..., None]
    mask = np.ones(series.shape[:3], bool)
    if steps.brain:
        mask = clean.brain(series[..., none].mean(axis=-1))
    maps = tensor.fit(series, gradients, steps.b0_s_mm2, mask)
    return Result(
        maps,
        mask,
        shells.shells(gradients.b_s_mm2, steps.b0_s_mm2),
        shells.condition(gradients.directions[~none]),
        float(np.nanmax(moved)),
        int(np.isnan(moved).sum()),
        gradients,
    )
