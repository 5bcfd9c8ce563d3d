"""The diffusion tensor of each voxel by weighted least squares, and what is read from it (Basser et al. 1994), by dipy."""

from typing import NamedTuple

import numpy as np

from ukbob_jax.diffusion import shells
from ukbob_jax.diffusion.gradients import Gradients
from ukbob_jax.diffusion.library import load


class Maps(NamedTuple):
    """What a series shows, float32.

    Attributes:
        t2: mean of the volumes without weighting, T2-weighted, in units of the scan, `x y z`.
        adc: apparent diffusion coefficient: mean diffusivity, mm²/s, `x y z`.
        fa: fractional anisotropy, 0 to 1, `x y z`.
        direction: unit vector of fastest diffusion in the world (right, anterior, superior), `x y z 3`, up to its sign.
    """

    t2: np.ndarray
    adc: np.ndarray
    fa: np.ndarray
    direction: np.ndarray


def fit(series: np.ndarray, gradients: Gradients, b0_s_mm2: float, mask: np.ndarray) -> Maps:
    """Fit ln S = ln S0 - b gᵀDg in every voxel of the mask; outside it maps are 0.

    Gradients lie in the world, so the tensor does too, whatever the order and signs of the voxel axes.

    Args:
        series: `x y z n`, float32.
        gradients: of the volumes, which `shells.usable` has accepted.
        b0_s_mm2: largest weighting that counts as none.
        mask: bool `x y z`.
    """
    none = shells.unweighted(gradients.b_s_mm2, b0_s_mm2)
    table = load("dipy.core.gradients").gradient_table(
        gradients.b_s_mm2, bvecs=gradients.directions, b0_threshold=b0_s_mm2
    )
    model = load("dipy.reconst.dti").TensorModel(table, fit_method="WLS")
    found = model.fit(series.astype(np.float64), mask=mask)
    t2 = series[..., none].mean(axis=-1, dtype=np.float64) * mask
    maps = (t2, found.md * mask, np.clip(np.nan_to_num(found.fa), 0, 1) * mask)
    direction = found.evecs[..., 0] * mask[..., None]  # x y z 3: the vector of the largest eigenvalue
    return Maps(*(np.asarray(values, np.float32) for values in (*maps, direction)))
