"""Radiomic features of all organs of a scan at once (pyradiomics, IBSI), and distances between sets of images by them."""

from ukbob_jax.radiomics.features import ALL, NAMES, features
from ukbob_jax.radiomics.frd import frd
from ukbob_jax.radiomics.frd_vectors import vector as frd_vector
from ukbob_jax.radiomics.ood import Detector, nfrd
from ukbob_jax.radiomics.resampling import resample

__all__ = ["ALL", "NAMES", "Detector", "features", "frd", "frd_vector", "nfrd", "resample"]
