"""OpenMind, or any data set of nnssl's, into a store; docs/ingestion.md, OpenMind.

    python -m ukbob_jax.main --config=configs/ingest_openmind.py --workdir=runs/openmind \
        --config.source.manifest=openneuro_metadata.csv --config.source.root=OpenMind         the flat table
    ... --config.source.manifest=pretrain_data.json --config.source.variables='("nnssl_raw=/data/raw",)'      nnssl's tree
    ... --config=configs/ingest_openmind.py:onemm ...                                          1 mm, as the benchmark's
    ... --config.source.modalities='("T1w",)' --config.source.max_quality_score=2.5 --config.source.where='("age=18:65",)'

Masks are stored as label sets mask/anatomy and mask/anonymisation. The same command goes on where it was stopped.
"""

import ml_collections

from configs import common

VARIANTS = {"native": {}, "onemm": {"spacing_mm": (1.0, 1.0, 1.0), "order": 3}}


def get_config(variant: str = "native") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "ingest"
    config.workers = 0  # processes; 0: one per core

    config.source = ml_collections.ConfigDict()
    config.source.kind = "openmind"
    config.source.manifest = (
        ""  # pretrain_data.json, the flat table (.csv, .tsv, .parquet), or a folder nnsslPlans_*
    )
    config.source.root = ""  # where relative paths begin; empty: the manifest's folder
    config.source.variables = ()  # "NAME=FOLDER" for paths that begin with $NAME; else the environment's
    config.source.modalities = ()  # such as "T1w"; empty: all
    config.source.studies = ()  # such as "ds000001"; empty: all
    config.source.max_quality_score = 0.0  # 1 is best, 5 worst; nnssl offers 1.5, 2.5, 3.0 and 3.5; 0: all
    config.source.where = ()  # such as "age=18:65", "sex=F", "derived_from="; all must hold
    config.source.split = "nnssl"  # who validates; or "sizes": as many persons as splits says
    config.source.splits = {"val": 0, "test": 0}
    config.source.seed = 0  # draws them
    config.source.spacing_mm = ()  # mm, x y z; empty: each scan's own
    config.source.order = 1  # of the splines that resample: 1 linear, 3 cubic
    config.source.crop = True  # to the box of voxels that are not 0
    config.source.nan = "refuse"  # scans with NaN or infinite voxels, or "zero" those voxels
    config.source.assume_ras = False  # accept scans that do not say how they are oriented
    config.source.constant = "refuse"  # scans of one value throughout, or "accept" them
    config.source.masks_swapped = True  # of images that nnssl preprocessed, where both are there
    config.source.update(VARIANTS[variant])
    return config
