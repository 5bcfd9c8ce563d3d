"""Which volumes of a series are weighted, with what, and whether a tensor can be fitted to them."""

import warnings

import numpy as np

from ukbob_jax.diffusion.gradients import Gradients
from ukbob_jax.errors import ValuesError

GAP_S_MM2 = 100.0  # between the b-values of two shells; scanners vary b within a shell by a few per cent
UNKNOWNS = 6  # of a symmetric tensor
SPAN = 1e-3  # singular values below this part of the largest count as zero
ILL_CONDITIONED = 10.0  # Skare et al. 2000: good schemes have 1.3 to 2


def unweighted(b_s_mm2: np.ndarray, b0_s_mm2: float) -> np.ndarray:
    """Which volumes count as b = 0, bool `n`: scanners write 5 or 20 s/mm² where imaging gradients weigh."""
    return b_s_mm2 <= b0_s_mm2


def shells(b_s_mm2: np.ndarray, b0_s_mm2: float) -> list[tuple[float, int]]:
    """The weightings of a series: mean b, s/mm², and number of volumes of each shell, ascending, without b = 0."""
    weighted = np.sort(b_s_mm2[~unweighted(b_s_mm2, b0_s_mm2)])
    if not len(weighted):
        return []
    groups = np.split(weighted, np.flatnonzero(np.diff(weighted) > GAP_S_MM2) + 1)
    return [(float(group.mean()), len(group)) for group in groups]


def usable(found: Gradients, b0_s_mm2: float, path: str) -> np.ndarray:
    """Which volumes enter the fit, bool `n`; a weighted one without a direction does not.

    Some scanners append the mean over all directions (trace) or a computed map, with b above 0 and no direction.

    Args:
        found: of the series.
        b0_s_mm2: largest weighting that counts as none.
        path: of the series, for messages.
    Raises:
        ValuesError: no volume without weighting, or weighted ones that do not determine a tensor.
    """
    none = unweighted(found.b_s_mm2, b0_s_mm2)
    if not none.any():
        raise ValuesError(
            f"{path}: no volume with b up to {b0_s_mm2:g} s/mm², the lowest is {found.b_s_mm2.min():g}. "
            "Add one, or raise the limit for b = 0."
        )
    directed = found.directions.any(axis=1)
    weighted = ~none & directed
    if not weighted.any():
        reason = "all directions are zero" if (~none).any() else f"no volume with b above {b0_s_mm2:g} s/mm²"
        raise ValuesError(f"{path}: {reason}; a tensor needs at least {UNKNOWNS} directions.")
    design = quadratic(found.directions[weighted])
    if (rank := int(np.linalg.matrix_rank(design, tol=SPAN * np.linalg.norm(design, 2)))) < UNKNOWNS:
        raise ValuesError(
            f"{path}: {int(weighted.sum())} weighted volumes determine {rank} of the {UNKNOWNS} numbers of a tensor; "
            f"at least {UNKNOWNS} directions are needed that differ in more than sign."
        )
    if (left_out := ~none & ~directed).any():
        warnings.warn(
            f"{path}: {int(left_out.sum())} volumes with b above 0 have no direction, such as a trace image; left out.",
            stacklevel=2,
        )
    return none | weighted


def condition(directions: np.ndarray) -> float:
    """Condition number of the equations for the tensor, directions `n 3` (Skare et al. 2000, J. Magn. Reson. 147, 340)."""
    return float(np.linalg.cond(quadratic(directions)))


def quadratic(directions: np.ndarray) -> np.ndarray:
    """The numbers that a tensor's xx yy zz xy xz yz are multiplied with in gᵀDg, `n 3` -> `n 6`."""
    x, y, z = directions.T
    return np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
