"""nnU-Net v2 model folders without nnU-Net: `bob.nnunet.load(folder).predict("scan.nii.gz")`.

Stage by stage what nnU-Net 2.8 does (`docs/nnunet.md`); logits are accumulated in float32, where nnU-Net takes float16.
"""

from ukbob_jax.inference.nnunet.folders import is_folder
from ukbob_jax.inference.nnunet.model import NnunetModel, load
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.inference.nnunet.plans import read as read_plans

__all__ = ["NnunetModel", "NnunetPlans", "is_folder", "load", "read_plans"]
