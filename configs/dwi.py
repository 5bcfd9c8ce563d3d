"""Diffusion series of a BIDS folder into a store, as T2-weighted image, ADC and FA; docs/diffusion.md.

    python -m ukbob_jax.main --config=configs/dwi.py --workdir=runs/dwi --config.source.root=BIDS
    ... --config.cluster=tcp://10.0.0.1:8786                through dask, on many machines
    ... --config=configs/dwi.py:fit ...                     the tensor alone, of series that are preprocessed already

The same command goes on where it was stopped. Needs `pip install 'ukbob-jax[dwi]'`.
"""

import ml_collections

from configs import common

PREPROCESSED = {"denoise": False, "ringing": False, "motion": False, "receive_field": False, "brain": False}
VARIANTS = {"all": {}, "fit": PREPROCESSED}


def get_config(variant: str = "all") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "ingest"
    config.workers = 0  # processes; 0: one per core

    config.source = ml_collections.ConfigDict()
    config.source.kind = "dwi"
    config.source.root = ""  # folder of the data set
    config.source.session = ""  # this one only; empty: all
    config.source.run = ""  # this one only; empty: all
    config.source.output = (
        "{workdir}/maps"  # t2, adc, fa as .nii.gz and a picture per subject; empty: the store alone
    )
    config.source.denoise = True  # MP-PCA
    config.source.ringing = True  # remove Gibbs ringing, within slices
    config.source.slice_axis = 2  # of the file, across slices as the scan was taken
    config.source.motion = True  # all volumes rigidly onto the first b = 0; directions turn along
    config.source.receive_field = True  # N4 on the mean b = 0
    config.source.brain = True  # cut out the brain, which becomes label set mask/anatomy
    config.source.b0_s_mm2 = 50.0  # largest weighting that counts as none
    config.source.assume_ras = False  # accept scans that do not say how they are oriented
    config.source.splits = {"val": 0, "test": 0}  # persons; the rest trains
    config.source.seed = 0  # draws them
    config.source.update(VARIANTS[variant])
    return config
