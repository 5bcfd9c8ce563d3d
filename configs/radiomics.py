"""Radiomic features of a store's labels, one table with a row per subject and organ.

    python -m ukbob_jax.main --config=configs/radiomics.py --workdir=DIR --config.store=STORE --config.label=auto \
        --config.radiomics.contrast=water                            into STORE/quality/auto/radiomics.csv
    ... --config.radiomics.normalise_scale=100 --config.radiomics.bin_width=5       grey levels of arbitrary units
    ... --config.radiomics.process=3 --config.radiomics.processes=16                one share; a last run without collects

Each field of `config.radiomics`: ukbob_jax/radiomics/options.py. Documentation: docs/radiomics.md.
"""

import ml_collections

from configs import common
from ukbob_jax import options
from ukbob_jax.radiomics.options import RadiomicsOptions

VARIANTS = {"cohort": {}}


def get_config(variant: str = "cohort") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "radiomics"
    config.radiomics = options.section(RadiomicsOptions)
    return config
