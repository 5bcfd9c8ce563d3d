"""Look at scans before they are ingested: geometry, intensities, labels and a contact sheet. Writes no store.

    python -m ukbob_jax.main --config=configs/inspect.py --workdir=runs/look \
        --config.source.paths.images=IMAGES --config.source.paths.labels=LABELS       two folders, matched by name
    python -m ukbob_jax.main --config=configs/inspect.py:root --workdir=runs/look \
        --config.source.layout=bids --config.source.paths.root=DATASET                any other layout
    ... --config.source.paths.desc=aseg        of several label maps of a BIDS image, this one; docs/ingestion.md
    python -m ukbob_jax.main --config=configs/inspect.py:ukb --workdir=runs/look --config.source.folder=ZIPS
    python -m ukbob_jax.main --config=configs/inspect.py:phantom --workdir=runs/look
"""

import ml_collections

from configs import common

VARIANTS = {
    "folders": common.files_source("folders", images="", labels=""),  # as for ingest: what would be stored
    "root": common.files_source("nnunet", root=""),
    "ukb": {"kind": "ukb", "folder": "", "instance": 2},
    "phantom": {"kind": "phantom", "count": 3, "shape": (64, 48, 128), "seed": 0},
}


def get_config(variant: str = "folders") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "inspect"
    config.source = ml_collections.ConfigDict(VARIANTS[variant])
    config.inspect = ml_collections.ConfigDict()
    config.inspect.subjects = 8  # read so many; 0: all
    config.inspect.pictures = 8  # rows of the contact sheet
    config.inspect.names = (
        "ukbob" if variant == "phantom" else ""
    )  # label set that names the ids; "": numbers
    return config
