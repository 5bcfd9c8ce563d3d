"""How large and how shaped every organ of a label map is, and which labels can be believed."""

from ukbob_jax.quality.limits import Limits
from ukbob_jax.quality.measures import FEATURES, OrganMeasures, measure, stack
from ukbob_jax.quality.solf import fit, fit_robust, flag, outside

__all__ = ["FEATURES", "Limits", "OrganMeasures", "fit", "fit_robust", "flag", "measure", "outside", "stack"]
