"""What trainings of every kind read in their configuration, and refuse by field before anything is compiled or read."""

import dataclasses

import ml_collections
from jax.sharding import Mesh

from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError
from ukbob_jax.training import loop

DTYPES = ("float32", "bfloat16")  # of the network's arithmetic
# Fields that count something, and so are at least 1.
COUNTS = (
    *(f"train.{name}" for name in ("steps", "log_every", "checkpoint_every", "stop_after_nonfinite")),
    *("data.batch_size", "mesh.fsdp", "mesh.space", "epochs.crops"),
)


def numbers(config: Config) -> None:
    """Refuse numbers with which nothing can be computed.

    Raises:
        ConfigError: naming the field.
    """
    for field in COUNTS:
        section, name = field.split(".")
        if config[section][name] < 1:
            raise ConfigError(f"config.{field}: {config[section][name]} is less than 1.")
    for name, value in config.epochs.items():
        if value < 0:
            raise ConfigError(f"config.epochs.{name}: {value} is less than 0.")
    if len(config.data.crop) != 3 or min(config.data.crop) < 1:
        raise ConfigError(f"config.data.crop: {config.data.crop} is not three numbers of voxels, x y z.")
    if config.model.get("dtype", DTYPES[0]) not in DTYPES:
        raise ConfigError(
            f"config.model.dtype: {config.model.dtype!r} is unknown; choose one of {', '.join(DTYPES)}."
        )
    if config.train.accumulate < 1 or config.data.batch_size % config.train.accumulate:
        raise ConfigError(
            f"config.train.accumulate: {config.train.accumulate} does not divide config.data.batch_size "
            f"{config.data.batch_size}."
        )
    if not 0 <= config.train.ema < 1:
        raise ConfigError(f"config.train.ema: {config.train.ema} is not in [0, 1); 0 turns it off.")
    if config.data.crop[0] % config.mesh.space:
        raise ConfigError(
            f"config.data.crop: {config.data.crop[0]} voxels along x do not divide over mesh.space {config.mesh.space}."
        )


def devices(config: Config, mesh: Mesh) -> None:
    """Refuse what the devices of the run cannot do.

    Raises:
        ConfigError: naming the field.
    """
    if config.model.get("attention") == "fused" and mesh.size > 1 and mesh.devices.flat[0].platform == "gpu":
        raise ConfigError(
            f"config.model.attention: 'fused' is for one GPU, the mesh has {mesh.size}: each would work on the whole batch. "
            "Take 'plain', or mesh.data=1."
        )


def channels(config: Config, data: TrainingData) -> None:
    """Refuse a network with another number of input channels than there are contrasts.

    Raises:
        ConfigError: naming the field.
    """
    if len(data.contrasts) != config.model.in_channels:
        raise ConfigError(
            f"config.model.in_channels is {config.model.in_channels}, but the store has {len(data.contrasts)} contrasts "
            f"({', '.join(data.contrasts)}). Change it, or choose some with config.data.contrasts."
        )


def with_length(config: Config, data: TrainingData) -> Config:
    """Return a copy of the recipe with all that it gives in epochs filled in in steps."""
    config = ml_collections.ConfigDict(config.to_dict())
    if config.epochs.total:
        length = config.epochs.crops * len(data.subjects) / config.data.batch_size  # steps
        config.train.steps = max(1, round(config.epochs.total * length))
        config.optimizer.decoder_steps = round(config.epochs.decoder * length)
        longest = max(config.train.steps - 1 - config.optimizer.decoder_steps, 0)
        config.optimizer.warmup_steps = min(round(config.epochs.warmup * length), longest)
    return config


def schedule(config: Config) -> loop.Schedule:
    """Return how long to train and how often to do what.

    Raises:
        ConfigError: a field cannot be used.
    """
    return loop.Schedule(
        **{field.name: config.train[field.name] for field in dataclasses.fields(loop.Schedule)}
    )
