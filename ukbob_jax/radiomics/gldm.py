"""Grey-level dependence: how many neighbours of a voxel have (nearly) its level (Sun and Wee 1983), 14 features."""

import numpy as np

from ukbob_jax.radiomics import size_matrices
from ukbob_jax.radiomics.regions import Cells

NAMES = {
    "DependenceEntropy": "entropy",
    "DependenceNonUniformity": "size_nonuniformity",
    "DependenceNonUniformityNormalized": "size_nonuniformity_normalised",
    "DependenceVariance": "size_variance",
    "GrayLevelNonUniformity": "level_nonuniformity",
    "GrayLevelVariance": "level_variance",
    "HighGrayLevelEmphasis": "high",
    "LargeDependenceEmphasis": "large",
    "LargeDependenceHighGrayLevelEmphasis": "large_high",
    "LargeDependenceLowGrayLevelEmphasis": "large_low",
    "LowGrayLevelEmphasis": "low",
    "SmallDependenceEmphasis": "small",
    "SmallDependenceHighGrayLevelEmphasis": "small_high",
    "SmallDependenceLowGrayLevelEmphasis": "small_low",
}


def gldm(dependence: np.ndarray, cells: Cells) -> dict[str, np.ndarray]:
    """Compute the 14 features of every organ, (k,) float64.

    Args:
        dependence: (c, neighbours + 1) from `neighbours.count`; sizes are counted with the voxel itself.
    """
    cell, alike = np.nonzero(dependence)
    organ, number = cells.organ[cell], dependence[cell, alike].astype(np.float64)
    found, _ = size_matrices.features(organ, len(cells.levels), cell, cells.level[cell], alike + 1, number)
    return {name: found[kind] for name, kind in NAMES.items()}
