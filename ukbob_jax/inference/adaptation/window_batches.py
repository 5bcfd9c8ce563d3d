"""A scan laid out in windows so that every voxel counts once: what adaptation sums over."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.windows import grid as grids
from ukbob_jax.inference.windows import sliding
from ukbob_jax.inference.windows.entropy import ACTIVATIONS

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a program is compiled for."""

    window: sliding.Settings
    steps: int
    optimizer: str
    activation: str
    background_weight: float
    exclude: tuple[int, ...]
    skip_nonfinite: bool
    must_fall: bool
    ceiling: float | None = None


class Scan(NamedTuple):
    """A scan padded to its bucket: shapes with as many windows share a program."""

    volume: jax.Array  # x y z c
    mask: jax.Array | None  # x y z
    shares: list[jax.Array]  # per axis; see `grid.shares`
    starts: jax.Array  # m batch 3
    counts: jax.Array  # m batch
    sampled: tuple[jax.Array, jax.Array] | None = None  # starts and counts of each step, `steps m batch ...`


def lay(
    volume: jax.Array | np.ndarray,
    roi: Sequence[int],
    *,
    mask: jax.Array | np.ndarray | None = None,
    overlap: float | Sequence[float] = 0.0,
    batch: int = 1,
    steps: int = 0,
    optimizer: str = "adam",
    activation: str = "softmax",
    background_weight: float = 1.0,
    exclude: Sequence[int] = (),
    ceiling: float | None = None,
    skip_nonfinite: bool = True,
    must_fall: bool = True,
    windows: int | None = None,
    seed: int = 0,
) -> tuple[Scan, Settings]:
    """The scan with its windows, and the settings a program is compiled for; arguments as `etta.etta`.

    Raises:
        ConfigError: a setting cannot be used.
    """
    volume = sliding.check_volume(volume)
    mask = _checked_mask(mask, np.shape(volume)[:3])
    window = sliding.make_settings(roi, overlap, "constant", batch)
    grid = grids.windows(volume.shape[:3], window.roi, window.overlap)
    static = Settings(
        window=dataclasses.replace(window, roi=grid.roi),
        steps=steps,
        optimizer=optimizer,
        activation=activation,
        background_weight=background_weight,
        exclude=tuple(exclude),
        skip_nonfinite=skip_nonfinite,
        must_fall=must_fall,
        ceiling=ceiling,
    )
    _check(static)
    sampled = None
    if windows is not None and steps:
        each = [grids.batches(s, batch) for s in grids.drawn(grid.starts, windows, steps, seed)]
        sampled = tuple(np.stack(part) for part in zip(*each))
    scan = Scan(
        sliding.pad_volume(volume, grid, grid.bucket, window.pad),
        None if mask is None else sliding.pad_volume(mask, grid, grid.bucket, 0.0),
        grids.shares(grid),
        *grids.batches(grid.starts, batch),
        sampled,
    )
    return scan, static


def voxel_weights(scan: Scan) -> jax.Array:
    """What each voxel counts in each window that sees it: `x y z`, 0 outside the scan.

    Over all windows the weights add up to 1, so that weighted sums are means over the scan.
    """
    x, y, z = scan.shares
    weights = x[:, None, None] * y[None, :, None] * z[None, None, :]
    mask = (weights > 0) if scan.mask is None else scan.mask
    return weights * (mask / jnp.sum(mask))


def _check(settings: Settings) -> None:
    """Raise a ConfigError for a setting that cannot be used."""
    if settings.steps < 0:
        raise ConfigError(f"etta: steps {settings.steps} is negative.")
    if not 0 <= settings.background_weight < np.inf:
        raise ConfigError(
            f"etta: background_weight {settings.background_weight} must be 0 or more; 1 is the plain mean."
        )
    if settings.ceiling is not None and not 0 < settings.ceiling <= 1:
        raise ConfigError(
            f"etta: ceiling {settings.ceiling} is outside 0 to 1, a share of the largest entropy."
        )
    for what, value, known in (
        ("optimizer", settings.optimizer, OPTIMIZERS),
        ("activation", settings.activation, ACTIVATIONS),
    ):
        if value not in known:
            raise ConfigError(f"etta: {what} {value!r} is not known. Use one of {', '.join(known)}.")


def _checked_mask(
    mask: jax.Array | np.ndarray | None, shape: tuple[int, ...]
) -> jax.Array | np.ndarray | None:
    """The mask as float32; a ConfigError if it is not of the volume's shape, or empty."""
    if mask is None:
        return None
    if np.shape(mask) != shape:
        raise ConfigError(f"etta: mask of shape {np.shape(mask)} for a volume of {shape}.")
    if not mask.any():
        raise ConfigError("etta: the mask keeps no voxel.")
    return mask.astype(np.float32)
