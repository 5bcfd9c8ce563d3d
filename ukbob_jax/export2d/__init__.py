"""3D label sets as 2D images and masks in the layout of SA-Med2D-20M, and back; documentation: docs/export2d.md."""

from ukbob_jax.export2d.manifest import CohortCounts, cohort_counts
from ukbob_jax.export2d.options import Export2dOptions
from ukbob_jax.export2d.reading import check, read, read_tables
from ukbob_jax.export2d.restore import Restored, label_map

__all__ = [
    "CohortCounts",
    "Export2dOptions",
    "Restored",
    "check",
    "cohort_counts",
    "label_map",
    "read",
    "read_tables",
]
