"""Which labels hold: measure a store's labels, fit limits, flag what leaves them, and make the page to audit them.

    python -m ukbob_jax.main --config=configs/solf.py --workdir=DIR --config.store=STORE
    ... --config.solf.process=3 --config.solf.processes=16      measure one share of a large cohort, judge nothing
    ... --config.solf.decisions=decisions.json                  with what was decided on the audit page
    python -m ukbob_jax.main --config=configs/solf.py:check_labels --workdir=DIR --config.check_labels.inputs=LABELS.nii.gz \
        --config.check_labels.limits=STORE/quality/auto/limits.json    one new label map, without the cohort

Reached: docs/benchmarks.md#label-filter.
"""

import ml_collections

from configs import common

VARIANTS = {"cohort": {}, "check_labels": {}}


def get_config(variant: str = "cohort") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "check_labels" if variant == "check_labels" else "solf,audit"
    return config
