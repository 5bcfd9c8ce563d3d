"""What of a recipe follows from the data, and what of it a resumed training must repeat."""

import dataclasses
from typing import Any

import ml_collections

from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.training import loop, provenance

# Fields of `config.train` that make the loop's schedule; the step takes the others.
SCHEDULE_FIELDS = tuple(field.name for field in dataclasses.fields(loop.Schedule))
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
}


def resolve(config: Config, data: TrainingData) -> Config:
    """Return the recipe with what it leaves to the data filled in: channels (0), steps and warm-up in epochs."""
    config = ml_collections.ConfigDict(config.to_dict())
    if config.epochs.total:
        length = config.epochs.crops * len(data.subjects) / config.data.batch_size  # steps
        config.train.steps = max(1, round(config.epochs.total * length))
        config.optimizer.warmup_steps = min(round(config.epochs.warmup * length), config.train.steps - 1)
    config.model.in_channels = config.model.in_channels or len(data.contrasts)
    config.model.out_channels = config.model.out_channels or data.num_classes
    return config


def schedule(config: Config) -> loop.Schedule:
    """Return how long to train and how often to do what.

    Raises:
        ConfigError: a field cannot be used.
    """
    return loop.Schedule(**{name: config.train[name] for name in SCHEDULE_FIELDS})


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
