"""How windows are laid and blended. Imports no JAX, since recipes read the defaults."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Window:
    """A window and how it slides; hashable, since a program is compiled for each.

    `grid.windows`, `grid.blend_weights` and `grid.batches` check the values.

    Attributes:
        roi: voxels, x y z; 0 or less takes the whole axis.
        overlap: fraction of a window that its neighbour covers, in [0, 1); one number, or one per axis.
        blend: "gaussian" or "constant".
        batch: windows in a call of the network.
    """

    roi: Sequence[int]
    overlap: float | Sequence[float] = 0.5
    blend: str = "gaussian"
    batch: int = 4

    def __post_init__(self) -> None:
        """Make the values hashable."""
        object.__setattr__(self, "roi", tuple(int(r) for r in self.roi))
        object.__setattr__(self, "overlap", fractions(self.overlap))
        object.__setattr__(self, "batch", int(self.batch))


def fractions(overlap: float | Sequence[float]) -> float | tuple[float, ...]:
    """One number, or one per axis, as a hashable value."""
    values = tuple(map(float, np.ravel(overlap)))
    return values[0] if np.ndim(overlap) == 0 else values
