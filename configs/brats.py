"""BraTS, three overlapping tumour regions in four MR contrasts: ingest, train.

    python -m ukbob_jax.main --config=configs/brats.py --workdir=runs/brats --config.source.paths.root=RAW \
        --config.init=runs/swin_bob --config.init_new='("head","stem")'
    ... --config=configs/brats.py:scratch    no weights to start from
    ... --config=configs/brats.py:brats2024    adults after treatment: 3 is enhancing tumour, 4 the resection cavity
    ... --config=configs/brats.py:brats_ped    children: 1 is enhancing tumour, 3 cystic component, 4 oedema
    ... --config=configs/brats.py:brats_men_rt    meningioma before radiotherapy: t1c and gtv, 1 is the gross volume
    ... --config=configs/brats.py:decathlon --config.source.paths.root=Task01_BrainTumour
    ... --config.job=predict --config.predict.inputs=NEW    label maps for folders like RAW's

RAW holds a folder per subject, `BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz` with -t1c, -t2w, -t2f, -seg, or the
names used until 2021 (_t1, _t1ce, _t2, _flair, _seg). Values 1, 2, 3 and 4 together are of one of the two releases
that have to be asked for by name. Otherwise whole tumour, tumour core and enhancing tumour are made of label
values 1, 2 and 3 or 4; label maps are written with the value the data has. Numbers without a mark are those of the
paper or of the script released with it; "ours" are not published.
"""

import ml_collections

from configs import common

VARIANTS = {
    "finetune": {},
    "scratch": {},
    "brats2024": {},
    "brats_ped": {},
    "brats_men_rt": {},
    "decathlon": {},
}


def get_config(variant: str = "finetune") -> ml_collections.ConfigDict:
    config = common.base()
    common.finetune(config, layout="brats")
    config.folds = 5
    config.regions = "brats"
    config.source.num_classes = 5
    config.source.contrasts = ("t1", "t1_contrast_agent", "t2", "flair")

    config.data.val_split = ""  # a fold validates
    config.data.normalize = "zscore"  # of the voxels inside the head
    config.data.foreground = 0.67  # ours
    config.model.in_channels = 4
    config.model.out_channels = 3  # whole tumour, core, enhancing
    config.loss.name = "dice_bce"  # the paper's; the script has Dice alone
    config.augment = ("gamma", "intensity", "noise", "affine")  # ours
    config.epochs.crops = 1  # ours: there are fifty times as many subjects as in BTCV
    config.train.eval_every = 5_000  # ours
    config.train.checkpoint_every = 1_000  # ours
    config.inference.overlap = 0.6
    config.predict.layout = "brats"

    if variant == "scratch":
        config.optimizer.layer_decay = 1.0
    if variant in ("brats2024", "brats_ped"):
        config.regions = variant
        config.model.out_channels = 4  # and the resection cavity, or the cystic component
    if variant == "brats_men_rt":
        config.regions = variant
        config.source.num_classes = 2
        config.source.contrasts = ("t1_contrast_agent",)
        config.model.in_channels = 1
        config.model.out_channels = 1
    if variant == "decathlon":
        config.regions = "decathlon"
        config.source.layout = "decathlon"
        config.source.num_classes = 4
        config.source.contrasts = ("flair", "t1", "t1_contrast_agent", "t2")
        config.predict.layout = ""
    return config
