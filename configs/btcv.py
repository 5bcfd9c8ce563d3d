"""BTCV, 13 abdominal organs in CT, 24 scans to train on and 6 to validate with: ingest, train.

    python -m ukbob_jax.main --config=configs/btcv.py --workdir=runs/btcv --config.source.paths.root=RAW \
        --config.init=runs/swin_bob --config.init_new='("head","stem_average")'
    ... --config=configs/btcv.py:scratch    no weights to start from
    ... --config=configs/btcv.py:folds --config.fold=0    one of five folds of the training scans

RAW holds `img/img0001.nii.gz` and `label/label0001.nii.gz` (registered users: synapse.org, syn3193805). Numbers without a
mark are those of the paper or of the script released with it; "ours" are not published.
"""

import pathlib

import ml_collections

from configs import common

VARIANTS = {"finetune": {}, "scratch": {}, "folds": {}}
SPLIT = pathlib.Path(__file__).parent / "splits" / "btcv_24_6.json"  # the public one, as in MONAI's tutorials


def get_config(variant: str = "finetune") -> ml_collections.ConfigDict:
    config = common.base()
    common.finetune(config, layout="btcv")
    config.splits = str(SPLIT)
    config.source.num_classes = 14
    config.source.contrasts = ("ct",)
    config.source.spacing_mm = (1.5, 1.5, 2.0)

    config.data.names = "btcv"
    config.data.val_split = ""  # config.splits says who validates
    config.data.normalize = "window:-175:250"  # HU
    config.data.foreground = 0.5
    config.model.in_channels = 1
    config.model.out_channels = 14
    config.loss.name = "dice_ce"  # released script; the paper says BCE and Dice: "dice_bce"
    config.augment = ("intensity", "affine")  # ours: the script's flips and turns swap left and right organs
    config.train.eval_every = 600  # ours: 50 epochs
    config.train.checkpoint_every = 300  # ours
    config.train.ema = 0.999  # ours
    config.inference.overlap = 0.5

    if variant == "scratch":
        config.optimizer.layer_decay = 1.0
        config.epochs.total = 5_000  # released script
    if variant == "folds":
        config.splits = ""
        config.folds = 5  # ours; the ten of the paper's last table: --config.folds=10
    return config
