"""Slices of a store as 2D images and masks, for trainers in the manner of SAM.

    python -m ukbob_jax.main --config=configs/export2d.py --workdir=DIR --config.store=STORE
                                                                 into DIR/export2d, in SA-Med2D-20M's layout
    ... --config=configs/export2d.py:demo                        in the layout that SAM-Med2D's loader reads
    ... --config.export2d.process=3 --config.export2d.processes=16    one share of a large store
    ... --config.cluster=tcp://10.0.0.1:8786                over dask

Each field of `config.export2d`: ukbob_jax/export2d/options.py. Documentation: docs/export2d.md.
"""

import ml_collections

from configs import common
from ukbob_jax import options
from ukbob_jax.export2d.options import Export2dOptions

VARIANTS = {"sa_med2d": {}, "demo": {}}


def get_config(variant: str = "sa_med2d") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "export2d"
    config.export2d = options.section(Export2dOptions)
    config.export2d.style = variant
    return config
