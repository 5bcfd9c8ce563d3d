"""Automatic labels into a store.

    python -m ukbob_jax.main --config=configs/label.py --workdir=DIR --config.store=STORE \
        --config.labeller.command='LABELLER -i {input} -o {output}' --config.labeller.contrasts='("water",)'
    python -m ukbob_jax.main --config=configs/label.py:teacher --workdir=DIR --config.store=STORE \
        --config.labeller.workdir=TRAINED
    python -m ukbob_jax.main --config=configs/label.py:nnunet --workdir=DIR --config.store=STORE \
        --config.labeller.model=Dataset123_Name/TRAINER__PLANS__CONFIGURATION
    python -m ukbob_jax.main --config=configs/label.py:agreement --workdir=DIR --config.store=STORE     automatic labels
                                                             beside manual ones, before and after the label filter

Commands for TotalVibeSegmentator and TotalSegmentator: docs/labels.md.
"""

import ml_collections

from configs import common

VARIANTS = {"command": {}, "teacher": {}, "nnunet": {"workers": 0}, "agreement": {}}


def get_config(variant: str = "command") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "agreement" if variant == "agreement" else "label"
    if variant in ("teacher", "nnunet"):
        config.labeller.kind = variant
    config.labeller.update(VARIANTS[variant])
    return config
