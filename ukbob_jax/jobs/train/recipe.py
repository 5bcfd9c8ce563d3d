"""What of a recipe follows from the data, and what of it a resumed training must repeat."""

import pathlib
from typing import Any

import ml_collections

from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.inference.nnunet import write
from ukbob_jax.inference.nnunet.plans import NnunetPlans
from ukbob_jax.regions import DATA_SET
from ukbob_jax.training import provenance, recipes
from ukbob_jax.volumes import dataset_json

OF_PLAN = "plan"  # name of a network or loss that nnU-Net's plans choose
THICK = 3  # longest side of a patch over the first, beyond which nnU-Net augments plane by plane

# Fields that recipes once did not have, with the values that all trainings had then. They are recorded only where they
# have others, so that trainings from before go on, and as text: to `check_resume` a field that one side lacks and that
# is False or 0 changes nothing, and here it does.
LATER_FIELDS: dict[str, Any] = {
    "data.names": "",
    "data.sampling": "balanced",
    "optimizer.name": "adamw",
    "optimizer.schedule": "cosine",
    "optimizer.final_fraction": 0.0,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.999,
    "optimizer.eps": 1e-8,
    "optimizer.power": 0.9,
    "optimizer.hold_steps": 1,
    "optimizer.momentum": 0.99,
    "loss.include_background": True,
    "loss.squared": False,
    "loss.jaccard": False,
    "loss.batch": False,
    "loss.smooth_nr": 1e-5,
    "loss.smooth_dr": 1e-5,
    "loss.lambda_dice": 1.0,
    "loss.lambda_ce": 1.0,
    "loss.lowest": True,
    "loss.groups": "",
    "loss.gamma": 1.0,
    "loss.bound": "present",
}


def resolve(config: Config, data: TrainingData) -> Config:
    """Return the recipe with what it leaves to the data filled in: channels (0), steps and warm-up in epochs."""
    config = recipes.with_length(config, data)
    config.model.in_channels = config.model.in_channels or len(data.contrasts)
    config.model.out_channels = config.model.out_channels or data.num_classes
    return config


def planned(config: Config, workdir: str) -> Config:
    """Return the recipe with what it leaves to nnU-Net's plans filled in; one without plans is returned as it is.

    These are the crop, batch size, network and loss, and in the augmentation "nnunet" turns within the planes of thick
    slices, as nnU-Net's does.

    Raises:
        FileError: the job preprocess has not been run.
    """
    if "plans" not in config:
        return config
    plans = write.find(
        pathlib.Path(workdir) / "nnunet", config.plans, config.configuration, "mirror" in config.augment
    )
    config = ml_collections.ConfigDict(config.to_dict())
    patch = plans.patch_size
    config.data.crop = tuple(n or of_plan for n, of_plan in zip(config.data.crop, patch))
    config.data.batch_size = config.data.batch_size or plans.batch_size
    config.regions = DATA_SET if plans.regions else ""
    if config.loss.name == OF_PLAN:
        config.loss.update(nnunet_loss(plans))
    if config.model.name == OF_PLAN:
        own = {name: config.model[name] for name in ("dtype", "remat")}
        channels = {"in_channels": plans.in_channels, "out_channels": plans.out_channels}
        fields = {**plans.network.fields, **channels, **own, "deep_supervision": True}
        config.model = ml_collections.ConfigDict({"name": plans.network.name, **fields})
    if max(patch) / patch[0] > THICK:
        config.augment = tuple("nnunet_thick" if step == "nnunet" else step for step in config.augment)
    return config


def nnunet_loss(plans: NnunetPlans) -> dict[str, Any]:
    """Return the fields of `config.loss` that give nnU-Net's loss for these plans (`nnUNetTrainer._build_loss`).

    With regions and an ignored label, nnU-Net divides the sum of binary cross entropy over regions and voxels by the
    number of voxels alone, so that it weighs as often as there are regions.
    """
    if not plans.regions:
        return {"name": "dice_ce", "include_background": False, "batch": plans.batch_dice}
    ignored = dataset_json.IGNORE_NAME in plans.dataset["labels"]
    weight = float(plans.out_channels) if ignored else 1.0
    return {"name": "dice_bce", "include_background": True, "batch": plans.batch_dice, "lambda_ce": weight}


def binding(config: Config, data: TrainingData) -> dict[str, Any]:
    """Return what a resume must repeat: dotted field -> JSON value.

    The names are those of the first trainings: `loss` is the loss's name, `data.label` the label set.
    """
    recorded = provenance.recipe(config.to_dict(), data.fingerprint())
    recorded |= {"loss": recorded.pop("loss.name"), "data.label": data.label}
    for name, earlier in LATER_FIELDS.items():
        value = recorded.pop(name)
        if value != earlier:
            recorded[name] = str(value)
    return recorded
