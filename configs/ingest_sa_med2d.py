"""A folder in SA-Med2D-20M's layout into a store, every image a subject of one slice; docs/export2d.md.

python -m ukbob_jax.main --config=configs/ingest_sa_med2d.py --workdir=runs/2d --config.source.root=SAMed2Dv1
... --config.source.datasets='("BraTS2021",)' --config.source.codes='("mr_t1",)'        a part of it
"""

import ml_collections

from configs import common

VARIANTS = {"images": {}}


def get_config(variant: str = "images") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "ingest"
    config.source = ml_collections.ConfigDict()
    config.source.kind = "sa_med2d"
    config.source.root = ""  # the folder that holds images and masks
    config.source.datasets = ()  # names to take; empty: all
    config.source.codes = ()  # modality codes to take, such as "mr_t1"; empty: all
    config.source.spacing_mm = (1.0, 1.0)  # of columns and rows; the layout does not say it
    config.source.splits = {"val": 0, "test": 0}  # cases; the rest trains
    config.source.seed = 0  # draws them
    return config
