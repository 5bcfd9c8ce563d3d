"""What a training's configuration may say: refused here by field, before anything is compiled or read."""

from jax.sharding import Mesh

from ukbob_jax import anatomy
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError

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


def network(config: Config, data: TrainingData) -> None:
    """Refuse a network that does not fit the data, before anything is compiled.

    Raises:
        ConfigError: naming the field.
    """
    if not data.label:
        raise ConfigError("config.label: empty; name the label set to learn.")
    model = config.model
    if len(data.contrasts) != model.in_channels:
        raise ConfigError(
            f"config.model.in_channels is {model.in_channels}, but the store has {len(data.contrasts)} contrasts "
            f"({', '.join(data.contrasts)}). Change it, or choose some with config.data.contrasts."
        )
    if data.regions and model.out_channels != data.num_classes:
        raise ConfigError(
            f"config.model.out_channels is {model.out_channels}, but there are {data.num_classes} regions."
        )
    if data.regions or data.lookup is not None:
        return
    subject, largest = data.largest_label()
    if largest >= model.out_channels:
        raise ConfigError(
            f"{subject}: label {largest} needs config.model.out_channels of at least {largest + 1}; it is "
            f"{model.out_channels}."
        )


def validation(config: Config, data: TrainingData) -> None:
    """Refuse labels that a validation would fail on, before the first step.

    Label sets and contrasts are checked where the data is opened (`TrainingData.open`), options of inference and the
    number that ranks checkpoints where the validation is built.

    Raises:
        ConfigError: naming the subject, and the label of it that does not fit.
    """
    if data.regions:
        return
    label_set = config.data.val_label
    for subject in data.held_out:
        present = data.store.present(subject, label_set)
        outside = [i for i in present if data.num_classes <= data.val_lookup[i] < anatomy.IGNORE]
        if outside:
            raise ConfigError(
                f"config.data.val_label: {subject} of validation has label {outside[0]} in {label_set!r}, which is not "
                f"among the {data.num_classes} classes of the training. Choose other splits, another label set, "
                f"config.data.organs, or config.model.out_channels={data.val_lookup[outside].max() + 1}."
            )
