"""How far two sets of scans are apart, in radiomic features; which features move, and which scans stand out.

    python -m ukbob_jax.main --config=configs/frd.py --workdir=DIR --config.store=STORE --config.frd.contrast=water \
        --config.frd.where='split=train' --config.frd.other_where='split=test'      splits of one store
    ... --config.frd.where='site=1' --config.frd.other_where='site=2'                sites; also scanner, sex, ...
    ... --config.frd.other=STORE2 --config.frd.other_label=manual                    two stores, and their label sets
    ... --config.frd.other_where='subject=1000012'                                   one scan: its score alone
    ... --config.frd.process=3 --config.frd.processes=16        one share of the features; a last run without compares

Each field of `config.frd`: ukbob_jax/radiomics/frd_options.py. Documentation: docs/frd.md.
"""

import ml_collections

from configs import common
from ukbob_jax import options
from ukbob_jax.radiomics.frd_options import FrdOptions

VARIANTS = {"cohort": {}}


def get_config(variant: str = "cohort") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "frd"
    config.frd = options.section(FrdOptions)
    return config
