"""A scan padded and cut into windows so that every voxel counts once: what adaptation sums over."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ukbob_jax.inference.adaptation.options import Adaptation, ScanOptions
from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows import sliding


class PaddedScan(NamedTuple):
    """A scan padded to its bucket: shapes with as many windows share a program."""

    volume: jax.Array | np.ndarray  # x y z c
    coverage: list[np.ndarray]  # per axis; see `grid.coverage_weights`
    starts: np.ndarray  # m batch 3
    counts: np.ndarray  # m batch, 0 for fillings
    sampled: tuple[np.ndarray, np.ndarray] | None = (
        None  # starts and counts of each step, `steps m batch ...`
    )


@dataclasses.dataclass(frozen=True)
class Program:
    """What a program is compiled for: the window, and the options without those whose values it is given."""

    roi: tuple[int, int, int]  # voxels, x y z
    options: Adaptation

    @classmethod
    def of(cls, roi: tuple[int, int, int], options: ScanOptions) -> "Program":
        """The program for some options; of another method than ETTA, one that takes no step."""
        if not isinstance(options, Adaptation):
            shared = {field.name: getattr(options, field.name) for field in dataclasses.fields(ScanOptions)}
            options = Adaptation(steps=0, **shared)
        given: dict[str, Any] = {"learning_rate": 0.0, "select": None, "max_drift": None, "windows": None}
        given |= {"seed": 0, "must_fall": options.entropy_must_fall, "guard": "entropy", "grader": ""}
        return cls(roi, dataclasses.replace(options, **given))

    def without_steps(self) -> "Program":
        """The program that measures and takes no step."""
        return dataclasses.replace(self, options=dataclasses.replace(self.options, steps=0))


def prepare_scan(
    volume: jax.Array | np.ndarray, roi: Sequence[int], options: ScanOptions
) -> tuple[PaddedScan, Program]:
    """Pad a scan, and say where its windows lie and which program it needs.

    Args:
        volume: `x y z c`, preprocessed as in training.
        roi: window, voxels, x y z; 0 or less takes the whole axis.
        options: of the method.

    Raises:
        ConfigError: the volume, window, overlap or batch cannot be used.
    """
    volume = sliding.check_volume(volume)
    grid = grids.windows(volume.shape[:3], roi, options.overlap)
    sampled = None
    if isinstance(options, Adaptation) and options.windows is not None and options.steps:
        chosen = grids.sample_windows(grid.starts, options.windows, options.steps, options.seed)
        starts, counts = zip(*(grids.batches(step, options.batch) for step in chosen))
        sampled = np.stack(starts), np.stack(counts)
    scan = PaddedScan(
        sliding.pad_volume(volume, grid, grid.bucket),
        grids.coverage_weights(grid),
        *grids.batches(grid.starts, options.batch),
        sampled,
    )
    return scan, Program.of(grid.roi, options)


def voxel_weights(scan: PaddedScan) -> jax.Array:
    """Weight of each voxel in each window that covers it: `x y z`, 0 outside the scan.

    Over all windows the weights add up to 1, so that weighted sums are means over the scan.
    """
    x, y, z = map(jnp.asarray, scan.coverage)
    weights = x[:, None, None] * y[None, :, None] * z[None, None, :]
    inside = weights > 0
    return weights * (inside / jnp.sum(inside))
