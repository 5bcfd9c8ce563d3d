"""DICOM series and UK Biobank's archives of them to volumes."""

from ukbob_jax.volumes.dicom.contrast import CONTRASTS, dixon_names
from ukbob_jax.volumes.dicom.folder import read_series, read_with_facts

__all__ = ["CONTRASTS", "dixon_names", "read_series", "read_with_facts"]
