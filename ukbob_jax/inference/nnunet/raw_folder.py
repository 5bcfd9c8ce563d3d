"""The training cases of an nnU-Net raw folder, and what their preprocessed arrays depend on."""

import dataclasses
import warnings

from ukbob_jax import splits
from ukbob_jax.errors import EmptyError
from ukbob_jax.inference.nnunet import plans as model_plans
from ukbob_jax.sources.files import file_digest
from ukbob_jax.volumes.case import LABEL_SET, Case
from ukbob_jax.volumes.layouts import nnunet

VERSION = 2  # raise it when preprocessing changes, so that stores are made anew


def training_cases(root: str) -> list[Case]:
    """The labelled cases of a raw folder."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*the labels are regions")  # which this recipe learns
        cases = [case for case in nnunet.list_cases(root) if case.split == "train"]
    if not cases:
        raise EmptyError(f"{root}: no training cases. Put images into imagesTr and label maps into labelsTr.")
    return cases


def checksum(case: Case, plans: model_plans.NnunetPlans) -> str:
    """Digest of the files' bytes and of what decides the arrays and the row."""
    paths = [*case.images, case.labels[LABEL_SET]]
    chosen = model_plans.resolve(plans.plans, plans.configuration, str(plans.folder))
    steps = {
        name: value for name, value in chosen.items() if name.startswith(("norm", "resampl", "use_mask"))
    }
    return splits.digest(
        {
            "nnunet": VERSION,
            "content": [(path.name, file_digest(str(path))) for path in paths],
            "reader": plans.reader,
            "transpose": plans.transpose_forward,
            "spacing": plans.spacing,
            "steps": steps,
            "intensities": [dict(properties) for properties in plans.intensities],
            "description": dataclasses.asdict(case.description),
        }
    )
