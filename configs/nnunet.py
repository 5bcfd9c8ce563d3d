"""nnU-Net's training from its raw folder and plans, into a model folder that nnU-Net itself predicts with.

    python -m ukbob_jax.main --config=configs/nnunet.py --workdir=W --config.source.paths.root=DATASET \
        --config.plans=PLANS.json [--config.configuration=3d_fullres] [--config.fold=0]

preprocess, train, export to W/nnunet/DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION, evaluate on the preprocessed grid and
on that of the files. docs/nnunet.md, Training.
Unmarked numbers: nnU-Net 2.8.1, `nnUNetTrainer`.
"""

import ml_collections

from configs import common

VARIANTS = {"plans": {}}
EPOCH = 250  # steps


def get_config(variant: str = "plans") -> ml_collections.ConfigDict:
    config = common.base()
    config.job = "preprocess,train,export_nnunet,evaluate,evaluate_nnunet"
    config.plans = ""  # the plans.json of nnUNetv2_plan_experiment
    config.configuration = "3d_fullres"  # one of the plans, of three axes and without a cascade
    config.source = ml_collections.ConfigDict()
    config.source.paths = {"root": ""}  # the raw folder: imagesTr, labelsTr, dataset.json
    config.splits = "{workdir}/splits_final.json"  # nnU-Net's five folds; or a splits_final.json of one's own
    config.fold = 0

    config.label = config.data.val_label = "manual"
    config.data.flagged = "off"
    config.data.crop = (0, 0, 0)  # 0: the plan's patch, on the axes of the preprocessed array
    config.data.batch_size = 0  # 0: the plan's
    config.data.foreground = 0.33
    config.data.sampling = "nnunet"
    config.data.normalize = "nnunet"  # done when preprocessing
    config.augment = ("nnunet", "mirror")  # without "mirror": nnUNetTrainerNoMirroring

    config.model = ml_collections.ConfigDict()
    config.model.name = "plan"  # the plan's network; another cannot be exported
    config.model.in_channels = 0  # of the data set
    config.model.out_channels = 0
    config.model.dtype = "float32"
    config.model.remat = False  # recompute in the backward pass what a step would keep
    config.loss.name = "plan"  # dice_ce, of regions dice_bce; batch Dice, and background as the plan says
    config.loss.lowest = False

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_steps = 0
    config.optimizer.schedule = "polynomial"
    config.optimizer.hold_steps = EPOCH
    config.optimizer.weight_decay = 3e-5
    config.optimizer.clip_norm = 12.0
    config.train.steps = 1000 * EPOCH
    config.train.log_every = EPOCH
    config.train.eval_every = 50 * EPOCH  # ours: on whole scans, where nnU-Net looks at patches every epoch
    config.train.checkpoint_every = 10 * EPOCH  # ours

    config.evaluate.name = "fold"
    config.evaluate.split = "val"
    config.evaluate.methods = ("off",)
    return config
