"""What a training's configuration may say: refused here by field, before anything is compiled or read."""

import ml_collections

from ukbob_jax.errors import ConfigError
from ukbob_jax.regions import Regions
from ukbob_jax.store.reader import Store

DTYPES = ("float32", "bfloat16")  # of the network's arithmetic
# Fields that count something, and so are at least 1.
COUNTS = (
    *(f"train.{name}" for name in ("steps", "log_every", "checkpoint_every", "stop_after_nonfinite")),
    *("data.batch_size", "mesh.fsdp", "mesh.space", "epochs.crops"),
)


def numbers(config: ml_collections.ConfigDict) -> None:
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


def labels(
    config: ml_collections.ConfigDict, store: Store, subjects: tuple[str, ...], held_out: tuple[str, ...]
) -> None:
    """Refuse label sets that a subject has not, before hours of training rather than at its crop or validation.

    Raises:
        ConfigError: naming the subject and the label set.
    """
    for field, chosen in (("label", subjects), ("val_label", held_out)):
        for subject in chosen:
            try:
                store.present(subject, config.data[field])
            except ConfigError as error:
                raise ConfigError(f"config.data.{field}: {error}") from error


def network(
    config: ml_collections.ConfigDict, store: Store, subjects: tuple[str, ...], contrasts: tuple[str, ...],
    regions: Regions | None = None,
) -> None:  # fmt: skip
    """Refuse a network that does not fit the store, before anything is compiled.

    Raises:
        ConfigError: naming the field.
    """
    if len(contrasts) != config.model.in_channels:
        raise ConfigError(
            f"config.model.in_channels is {config.model.in_channels}, but the store has {len(contrasts)} contrasts "
            f"({', '.join(contrasts)}). Change it, or choose some with config.data.contrasts."
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
    if regions and config.model.out_channels != len(regions.names):
        raise ConfigError(
            f"config.model.out_channels is {config.model.out_channels}, but there are {len(regions.names)} regions."
        )
    for subject in subjects if not (config.data.organs or regions) else ():
        largest = max(store.present(subject, config.data.label), default=0)
        if largest >= config.model.out_channels:
            raise ConfigError(
                f"{subject}: label {largest} needs config.model.out_channels of at least {largest + 1}; it is "
                f"{config.model.out_channels}."
            )
