"""Synthetic neck-to-knee Dixon subjects with 71 structures, planted label errors and shifted scanners."""

from ukbob_jax.phantom import label_errors, scanners
from ukbob_jax.phantom.appearance import CONTRASTS
from ukbob_jax.phantom.grid import FIELD_OF_VIEW_MM, affine, spacing_mm
from ukbob_jax.phantom.person import describe
from ukbob_jax.phantom.subject import label_map, subject

__all__ = [
    "CONTRASTS",
    "FIELD_OF_VIEW_MM",
    "affine",
    "describe",
    "label_errors",
    "label_map",
    "scanners",
    "spacing_mm",
    "subject",
]
