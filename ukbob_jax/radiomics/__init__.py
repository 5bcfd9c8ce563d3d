"""Radiomic features of all organs of a scan at once, by pyradiomics' definitions or IBSI's."""

from ukbob_jax.radiomics.features import ALL, NAMES, features
from ukbob_jax.radiomics.resampling import resample

__all__ = ["ALL", "NAMES", "features", "resample"]
