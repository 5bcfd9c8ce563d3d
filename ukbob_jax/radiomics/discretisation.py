"""Grey levels of many organs at once: each organ's own bins, of one width or of one count.

pyradiomics and IBSI cut differently. Bins of a width start at the multiple of the width below the organ's minimum
(pyradiomics) or at the minimum itself (IBSI, "fixed bin size"). A count of bins divides the organ's range; IBSI's levels
("fixed bin number") are those of pyradiomics but for rounding at the edges. Levels start at 1; a bin holds its lower edge.
"""

import numpy as np

from ukbob_jax.errors import ValuesError

DEFINITIONS = ("pyradiomics", "ibsi")
MOST_LEVELS = 2**13  # of an organ


def check(bin_width: float | None, bin_count: int | None, definition: str) -> None:
    """Refuse what says of no values where their levels begin.

    Raises:
        ValuesError: a width or count that is not positive, or another definition.
    """
    if definition not in DEFINITIONS:
        raise ValuesError(f"definition={definition!r}: choose one of {', '.join(DEFINITIONS)}.")
    if bin_count is not None:
        if not 1 <= bin_count <= MOST_LEVELS or bin_count != int(bin_count):
            raise ValuesError(f"bin_count={bin_count}: give a whole number of bins, 1 to {MOST_LEVELS}.")
    elif bin_width is None or not 0 < bin_width < np.inf:
        raise ValuesError(f"bin_width={bin_width}: give a positive width in the image's unit, or bin_count.")


def grey_levels(
    values: np.ndarray,
    organ: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    bin_width: float | None = 25.0,
    bin_count: int | None = None,
    definition: str = "pyradiomics",
) -> np.ndarray:
    """Return the grey level of every voxel, from 1.

    Args:
        values: (n,), float64.
        organ: (n,), which organ each voxel belongs to, 0 to k - 1.
        low: (k,), least value of each organ.
        high: (k,), greatest value of each organ.
        bin_width: in the image's unit; not looked at where a count is given.
        bin_count: bins between an organ's least and greatest value.
        definition: "pyradiomics" or "ibsi".
    Returns:
        (n,), int64.
    Raises:
        ValuesError: a width or count that is not positive, or another definition.
    """
    check(bin_width, bin_count, definition)
    if bin_count is not None:
        flat = low == high
        start = np.where(flat, low - 0.5, low)  # an organ of one value: the middle bin of a range of 1
        step = np.where(flat, 1.0, high - low) / bin_count
        level = _count_edges_below(values, start[organ], step[organ], step[organ])
        return np.minimum(level, int(bin_count))  # the greatest value belongs to the last bin
    assert bin_width is not None
    if (widest := float((high - low).max(initial=0))) / bin_width >= MOST_LEVELS - 2:
        raise ValuesError(
            f"bin_width={bin_width:g}: an organ whose intensities span {widest:g} would have more than {MOST_LEVELS} grey "
            "levels. Give a larger width, or bin_count."
        )
    start = low if definition == "ibsi" else low - low % bin_width
    step = (start + bin_width) - start  # what a step from the first edge comes to in float64
    return _count_edges_below(values, start[organ], step[organ], np.full(1, bin_width))


def _count_edges_below(
    values: np.ndarray, start: np.ndarray, step: np.ndarray, near: np.ndarray
) -> np.ndarray:
    """Count the edges `start + i * step`, i = 0, 1, ..., that are not above each value.

    The quotient is right but for rounding; the edges beside it decide, as a search among them would.
    """
    index = np.floor((values - start) / near)
    index += start + (index + 1) * step <= values
    index -= start + index * step > values
    return np.maximum(index, 0).astype(np.int64) + 1
