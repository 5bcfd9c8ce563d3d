"""Grey-level zones: pieces of one level, connected over faces, edges and corners, 16 features."""

import cc3d
import numpy as np

from ukbob_jax.radiomics import size_matrices
from ukbob_jax.radiomics.regions import Cells, Regions

NAMES = {
    "GrayLevelNonUniformity": "level_nonuniformity",
    "GrayLevelNonUniformityNormalized": "level_nonuniformity_normalised",
    "GrayLevelVariance": "level_variance",
    "HighGrayLevelZoneEmphasis": "high",
    "LargeAreaEmphasis": "large",
    "LargeAreaHighGrayLevelEmphasis": "large_high",
    "LargeAreaLowGrayLevelEmphasis": "large_low",
    "LowGrayLevelZoneEmphasis": "low",
    "SizeZoneNonUniformity": "size_nonuniformity",
    "SizeZoneNonUniformityNormalized": "size_nonuniformity_normalised",
    "SmallAreaEmphasis": "small",
    "SmallAreaHighGrayLevelEmphasis": "small_high",
    "SmallAreaLowGrayLevelEmphasis": "small_low",
    "ZoneEntropy": "entropy",
    "ZonePercentage": "percentage",
    "ZoneVariance": "size_variance",
}


def glszm(regions: Regions, cells: Cells) -> dict[str, np.ndarray]:
    """Compute the 16 features of every organ, (k,) float64."""
    cell, size, number = zone_counts(regions, cells)
    organ = cells.organ[cell]
    found, _ = size_matrices.features(organ, regions.count, cell, cells.level[cell], size, number)
    return {name: found[kind] for name, kind in NAMES.items()}


def zone_counts(regions: Regions, cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List cell, size and number of zones; all organs and levels are labelled in one pass."""
    box = regions.filled(cells.of_voxel, np.uint32).reshape(regions.shape)
    zone = cc3d.connected_components(box, connectivity=26).ravel()[regions.voxels]
    size = np.bincount(zone)
    cell = np.zeros(len(size), np.int64)
    cell[zone] = cells.of_voxel
    there = np.flatnonzero(size)
    width = int(size.max()) + 1
    key, number = np.unique(cell[there] * width + size[there], return_counts=True)
    return key // width, key % width, number.astype(np.float64)
