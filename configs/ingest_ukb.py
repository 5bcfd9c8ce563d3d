"""UK Biobank's neck-to-knee Dixon archives (field 20201) into a store; docs/uk_biobank.md walks through it.

    python -m ukbob_jax.main --config=configs/ingest_ukb.py --workdir=runs/ukb --config.source.folder=ZIPS

ZIPS holds `<participant>_20201_<instance>_0.zip`, in folders of any depth, and is only read. The same command goes on
where it was stopped. Needs `pip install 'ukbob-jax[dicom]'`.
"""

import ml_collections

from configs import common

VARIANTS = {"all": {}}


def get_config(variant: str = "all") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "ingest"
    config.workers = 0  # processes; 0: one per core. each needs about 1.2 GB

    config.source = ml_collections.ConfigDict()
    config.source.kind = "ukb"
    config.source.folder = ""  # of the archives, at any depth
    config.source.instance = 2  # first imaging visit; 3: the repeat; -1: both
    config.source.contrasts = (
        "fat",
        "water",
        "in_phase",
        "opposed_phase",
    )  # each at every station, or refused
    config.source.spacing_mm = ()  # mm, x y z; empty: the scan's own, 2.232 x 2.232 x 3.0
    config.source.refuse = ()  # "swapped", "missing_stations", "gaps_mm", "contradicted_series": not stored but listed
    config.source.splits = {"val": 0, "test": 0}  # participants; the rest trains
    config.source.seed = 0  # draws the splits
    return config
