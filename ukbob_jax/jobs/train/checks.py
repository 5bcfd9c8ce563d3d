"""What of a training's configuration must fit its data: refused here by field, before anything is compiled or read."""

from ukbob_jax import anatomy
from ukbob_jax.data.options import Config
from ukbob_jax.data.training_data import TrainingData
from ukbob_jax.errors import ConfigError
from ukbob_jax.training import recipes


def network(config: Config, data: TrainingData) -> None:
    """Refuse a network that does not fit the data, before anything is compiled.

    Raises:
        ConfigError: naming the field.
    """
    if not data.label:
        raise ConfigError("config.label: empty; name the label set to learn.")
    model = config.model
    recipes.channels(config, data)
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
