"""nnU-Net v2 model folders without nnU-Net: `bob.nnunet.load(folder).predict("scan.nii.gz")`.

And VIBESegmentator and TotalSegmentator from downloaded weights: `bob.nnunet.preset("vibesegmentator", folder)`.
Stage by stage what nnU-Net 2.8 does (`docs/nnunet.md`); logits are accumulated in float32, where nnU-Net takes float16.
"""

from ukbob_jax.inference.nnunet.folders import is_folder
from ukbob_jax.inference.nnunet.model import NnunetModel, load
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.inference.nnunet.plans import read as read_plans
from ukbob_jax.inference.nnunet.presets import PresetSegmenter, preset
from ukbob_jax.inference.nnunet.recipes import Part, Recipe
from ukbob_jax.inference.nnunet.recipes import find as recipe

__all__ = [
    "NnunetModel",
    "NnunetPlans",
    "Part",
    "PresetSegmenter",
    "Recipe",
    "is_folder",
    "load",
    "preset",
    "read_plans",
    "recipe",
]
